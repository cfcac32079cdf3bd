"""The photos that scikit-image ships, to show to networks that see."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from ..errors import DataError, UnknownName
from ..pictures import opened

# Only what is in the wheel itself; scikit-image would fetch its other pictures from the web.
PHOTOS = {
    "astronaut": ("astronaut.png", "Eileen Collins in her space suit (NASA)"),
    "brick": ("brick.png", "a brick wall, grey"),
    "camera": ("camera.png", "a photographer with his camera on a lawn, grey"),
    "chelsea": ("chelsea.png", "a cat's face"),
    "clock": ("clock_motion.png", "a clock, blurred by motion, grey"),
    "coffee": ("coffee.png", "a cup of espresso on a wooden table"),
    "coins": ("coins.png", "Greek coins from Pompeii, grey"),
    "grass": ("grass.png", "grass, grey"),
    "gravel": ("gravel.png", "gravel, grey"),
    "hubble": ("hubble_deep_field.jpg", "the Hubble eXtreme Deep Field: galaxies (NASA)"),
    "moon": ("moon.png", "the surface of the moon, grey"),
    "motorcycle": ("motorcycle_left.png", "a motorcycle in a garage (Middlebury stereo)"),
    "retina": ("retina.jpg", "the back of a human eye"),
    "rocket": ("rocket.jpg", "a rocket on its pad, ready to start (SpaceX)"),
}


def photos() -> dict[str, np.ndarray]:
    """All the photos by name, each rows × columns × 3, 8 bits; their sizes differ.

    Raises DataError without the vision extra.

    >>> sorted(photos())[:3]  # doctest: +SKIP
    ['astronaut', 'brick', 'camera']
    """
    return {name: photo(name) for name in PHOTOS}


def photo(name: str) -> np.ndarray:
    """One photo, rows × columns × 3, 8 bits. Raises UnknownName, and DataError without the vision extra.

    >>> photo("chelsea").shape  # doctest: +SKIP
    (300, 451, 3)
    """
    if name not in PHOTOS:
        raise UnknownName("photo", name, PHOTOS)
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        raise DataError(
            "The photos come with the package scikit-image, which is not here.", "Run: pip install 'neuralmine[vision]'"
        )
    return opened(Path(found.origin).parent / "data" / PHOTOS[name][0])
