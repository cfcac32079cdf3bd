"""Tiles of the photos that scikit-image ships: real pictures of many things, without a download."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ..types import Dataset
from .photos import PHOTOS, photo


@lru_cache(maxsize=2)
def tiles(size: int = 227, across: int = 4) -> Dataset:
    """Overlapping squares cut from the 14 photos, at two scales; the class is the photo a tile comes from.

    `size` is the side in pixels, `across` how many tiles lie side by side along the shorter side at the finer scale.
    Raises DataError without the vision extra.

    >>> len(tiles(64))  # doctest: +SKIP
    280
    """
    from PIL import Image

    pictures, labels = [], []
    for label, name in enumerate(PHOTOS):
        image = Image.fromarray(photo(name))
        for count in (2, across):
            side = min(image.size) * 2 / (count + 1)  # neighbours overlap by half
            for row in range(count):
                for column in range(count):
                    left = (image.size[0] - side) * column / (count - 1)
                    top = (image.size[1] - side) * row / (count - 1)
                    box = (left, top, left + side, top + side)
                    cut = image.resize((size, size), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
                    pictures.append(np.asarray(cut, dtype=np.float32) / np.float32(255))
                    labels.append(label)
    return Dataset(
        "tiles", np.stack(pictures), np.array(labels), tuple(PHOTOS),
        "Tiles of one photo overlap: this set shows what excites a map, it does not measure accuracy.", "scikit-image",
    )  # fmt: skip
