"""Toy problems: two numbers in, two classes. No line tells the classes apart, so a net without activations cannot."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..errors import UnknownName, UsageError
from ..types import Dataset

CORNER = 0.6  # the four clusters of xor lie around (±0.6, ±0.6)


def xor(*, points: int = 200, noise: float = 0.3, seed: int = 0) -> Dataset:
    """Four clusters around the corners of a square; the class is whether the two numbers differ in sign.

    The points come in fours: the corners of one square, moved together by up to ±noise in each direction. So no line
    is right on more than 75 % of them, or of either part, whatever the noise: where a line says one class is convex
    and so is the rest, and the middle of a square lies between both pairs of like corners. Below a noise of 0.6 every
    cluster stays in its own quarter of the plane. The test part is the last quarter of the fours.
    Raises UsageError for points that are no fours.

    >>> xor(points=8, noise=0.0).images[:4].tolist()
    [[0.6, 0.6], [-0.6, -0.6], [-0.6, 0.6], [0.6, -0.6]]
    """
    _checked(points, noise, 4, 8)
    shifts = np.random.default_rng(seed).uniform(-noise, noise, (points // 4, 1, 2))
    corners = CORNER * np.array([[1, 1], [-1, -1], [-1, 1], [1, -1]])
    return Dataset(
        "xor", (corners + shifts).reshape(-1, 2), np.tile([0, 0, 1, 1], points // 4), ("same sign", "different sign"),
        "The points come in fours, the corners of one moved square: no line is right on more than 75 % of them.",
        f"made here: {points} points, noise {noise:g}, seed {seed}", test_from=4 * max(1, 3 * points // 16),
    )  # fmt: skip


def spirals(*, points: int = 200, noise: float = 0.03, seed: int = 0, turns: float = 1.0) -> Dataset:
    """Two spirals that wind around each other: the second is the first turned by half a circle.

    `turns` is how often each winds around the middle. Each point is moved by up to ±noise in each direction.
    Raises UsageError for an odd number of points.

    >>> spirals(points=40).images.shape
    (40, 2)
    """
    _checked(points, noise, 2, 8)
    if not 0 < turns <= 4:
        raise UsageError(f"turns is {turns}; it must lie above 0 and be at most 4.", "Choose a number in between.")
    generator = np.random.default_rng(seed)
    out = generator.uniform(0.08, 1, (points // 2, 1))
    angle = 2 * np.pi * turns * out
    arm = np.concatenate([out * np.cos(angle), out * np.sin(angle)], 1)
    both = np.stack([arm, -arm], 1).reshape(-1, 2)
    return _moved("spirals", both, ("first spiral", "second spiral"), noise, generator, f"{turns:g} turns, seed {seed}")


def circles(*, points: int = 200, noise: float = 0.05, seed: int = 0) -> Dataset:
    """A disc, and a ring around it. Each point is moved by up to ±noise in each direction.

    Raises UsageError for an odd number of points.

    >>> circles(points=40).classes
    ('disc', 'ring')
    """
    _checked(points, noise, 2, 8)
    generator = np.random.default_rng(seed)
    angle = generator.uniform(0, 2 * np.pi, (points // 2, 2))
    radius = np.sqrt(generator.uniform([0, 0.7**2], [0.4**2, 1], (points // 2, 2)))  # even over each area
    both = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 2).reshape(-1, 2)
    return _moved("circles", both, ("disc", "ring"), noise, generator, f"seed {seed}")


TOYS: dict[str, Callable[..., Dataset]] = {"xor": xor, "spirals": spirals, "circles": circles}


def toy(name: str, **options: float) -> Dataset:
    """A toy problem by its name. Raises UnknownName."""
    if name not in TOYS:
        raise UnknownName("toy problem", name, TOYS)
    return TOYS[name](**options)


def _moved(
    name: str, places: np.ndarray, classes: tuple[str, str], noise: float, generator: np.random.Generator, how: str
) -> Dataset:
    moved = places + generator.uniform(-noise, noise, places.shape)
    labels = np.tile([0, 1], len(places) // 2)
    return Dataset(
        name, moved, labels, classes, "Made by a rule, so the test part comes from exactly where the training part does.",
        f"made here: {len(places)} points, noise {noise:g}, {how}",
    )  # fmt: skip


def _checked(points: int, noise: float, multiple: int, fewest: int) -> None:
    if points != int(points) or points % multiple or not fewest <= points <= 100_000:
        raise UsageError(
            f"points is {points}; it must be a multiple of {multiple} from {fewest} to 100,000.",
            "Choose such a number.",
        )
    if not 0 <= noise <= 1:
        raise UsageError(f"noise is {noise}; it must lie from 0 to 1.", "Choose a number in between.")
