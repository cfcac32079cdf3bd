"""Arithmetic of pictures: sizes, distances, shuffles, and a change brought to a budget."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def shown(picture: np.ndarray) -> np.ndarray:
    """Colours × rows × columns as rows × columns × 3; a copy."""
    return np.ascontiguousarray(np.moveaxis(np.broadcast_to(picture, (3, *picture.shape[1:])), 0, -1))


def eight_bits(picture: np.ndarray) -> np.ndarray:
    """Colours × rows × columns, 0..1, as rows × columns × 3 of 8 bits: what a file holds."""
    bands = [np.rint(shown(band) * np.float32(255)).astype(np.uint8) for (band,) in _bands(picture)]
    return np.concatenate(bands)


def resized(picture: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Bilinear; antialiased where it gets smaller."""
    import torch

    if tuple(picture.shape[1:]) == tuple(size):
        return picture
    smaller = size[0] < picture.shape[1] or size[1] < picture.shape[2]
    return torch.nn.functional.interpolate(
        picture[None], size=size, mode="bilinear", align_corners=False, antialias=smaller
    )[0]


def enlarged(picture: np.ndarray, factor: float) -> np.ndarray:
    """The middle of a picture (colours × rows × columns), so much larger, in the picture's own size; bicubic."""
    import torch

    where = torch.tensor([[[1 / factor, 0, 0], [0, 1 / factor, 0]]], dtype=torch.float32)
    grid = torch.nn.functional.affine_grid(where, [1, *picture.shape], align_corners=False)
    found = torch.nn.functional.grid_sample(
        torch.as_tensor(picture)[None], grid, mode="bicubic", padding_mode="reflection", align_corners=False
    )
    return found[0].clamp_(0, 1).numpy()


def blurred(picture: torch.Tensor, sd: float) -> torch.Tensor:
    """Gaussian, cut at three sd; the edge repeats."""
    import torch

    reach = max(1, math.ceil(3 * sd))
    taps = torch.exp(-torch.arange(-reach, reach + 1, dtype=picture.dtype).square() / (2 * sd * sd))
    taps /= taps.sum()
    functional = torch.nn.functional
    wide = functional.pad(picture[:, None], (reach,) * 4, mode="replicate")
    wide = functional.conv2d(functional.conv2d(wide, taps.view(1, 1, -1, 1)), taps.view(1, 1, 1, -1))
    return wide[:, 0]


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """L2 per value: the root of the mean squared difference."""
    total = sum(float(np.square(a.astype(np.float64) - b).sum()) for a, b in _bands(one, other))
    return math.sqrt(total / one.size)


def _bands(*pictures: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Matching parts, a few rows at a time: whole photos in double precision would fill the memory."""
    rows = max(1, 500_000 // max(1, pictures[0].shape[-1]))
    for start in range(0, pictures[0].shape[1], rows):
        yield tuple(picture[:, start : start + rows] for picture in pictures)


def changed(photo: np.ndarray, picture: np.ndarray, factor: float) -> np.ndarray:
    """The photo with so much of the picture's change, cut to 0..1."""
    if factor == 1:
        return picture
    return np.clip(photo + np.float32(factor) * (picture - photo), 0, 1)


def shuffled_change(photo: np.ndarray, picture: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The photo with the picture's change in a random order of its pixels (colours stay together), at the same L2.

    The cut to 0..1 takes another part of it in every order; what is left is brought back to the same L2 per value.
    """
    order = generator.permutation(photo[0].size)
    change = (picture - photo).reshape(len(photo), -1)[:, order].reshape(photo.shape)
    mixed = np.clip(photo + change, 0, 1)
    del change
    if distance(photo, mixed) > 0:
        at_budget(photo, mixed, distance(photo, picture))
    return mixed


def at_budget(photo: np.ndarray, picture: np.ndarray, budget: float) -> float:
    """Bring the change to that L2 per value, in place, by one factor; gives the factor (0 when there is no change).

    The cut to 0..1 is reckoned with. If even a hundredfold change does not reach the budget, it is left at that.
    """

    def at(factor: float) -> float:
        bands = _bands(photo, picture)
        return math.sqrt(
            sum(float(np.square(changed(a, b, factor) - a).sum(dtype=np.float64)) for a, b in bands) / photo.size
        )

    now = at(1.0)
    if now == 0:
        return 0.0
    low, high = 0.0, 1.0
    while at(high) < budget and high < 100:
        low, high = high, high * 2
    factor = budget / now if now > budget else high
    for _ in range(40):
        reached = at(factor)
        if abs(reached - budget) <= 1e-6 * budget:
            break
        low, high = (factor, high) if reached < budget else (low, factor)
        # By proportion where that stays inside, else by halves.
        guess = factor * budget / reached if reached else 0.0
        factor = guess if low < guess < high else (low + high) / 2
    for a, b in _bands(photo, picture):
        b[:] = changed(a, b, factor)
    return factor
