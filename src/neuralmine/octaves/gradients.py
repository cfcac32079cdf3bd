"""The objective and its gradient in the picture, tile by tile for a large one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..dreaming import reach
from ..types import Layer
from .scenes import Scene, Wanted, answers_of, axis_of

if TYPE_CHECKING:
    import torch


def _excited(values: torch.Tensor, wanted: Wanted, layer: Layer | None) -> torch.Tensor:
    """The objective at each place (the last two axes, of maps): its mean is what is climbed."""
    if wanted.target is not None:
        return values[:, wanted.target]
    if wanted.guide is not None:
        return (values[0].flatten(1).T @ wanted.guide.T).max(1).values.view(values.shape[2:])
    if wanted.unit is not None and layer is not None:
        return values.select(axis_of(layer), wanted.unit)
    return values.square()


def _own(
    each: torch.Tensor, core: Sequence[slice], seen: Sequence[slice], wanted: Wanted, size: Sequence[int]
) -> torch.Tensor:
    """The places that belong to the tile, not to its margin; the last tile has all that are left."""
    if not wanted.placed or all(s.stop - s.start == n for s, n in zip(seen, size, strict=True)):
        return each
    rows, columns = (
        slice((c.start - s.start) // step, None if c.stop == n else (c.stop - s.start) // step)
        for c, s, step, n in zip(core, seen, wanted.stride, size, strict=True)
    )
    return each[..., rows, columns]


def gradient_of(scene: Scene, picture: torch.Tensor, wanted: Wanted, tile: int = 512) -> tuple[float, torch.Tensor]:
    """The objective of a picture (colours × rows × columns), and its gradient, tile by tile.

    Each tile sees a margin around it: the field of a place of the layer, or half of it where it is large, but at most a
    quarter of the tile. With a whole field, objective and gradient are the whole picture's own; with half of one the
    gradient at the seams differs by a few hundredths. A class is asked of each tile for itself.
    """
    import torch

    network, size = scene.network, picture.shape[1:]
    layer = network.layer(wanted.layer) if wanted.layer else None
    found, total, count = torch.zeros_like(picture), 0.0, 0
    run = reach(network, wanted.layer)
    with torch.enable_grad():
        for core, seen in _tiles(size, wanted, tile):
            fed = scene.fed(picture[:, *seen]).requires_grad_()
            (values,) = run(fed)
            each = _excited(values, wanted, layer)
            (slopes,) = torch.autograd.grad(each.sum(), fed)
            own = _own(each.detach(), core, seen, wanted, size)
            total, count = total + float(own.sum(dtype=torch.float64)), count + own.numel()
            inside = tuple(slice(c.start - s.start, c.stop - s.start) for c, s in zip(core, seen, strict=True))
            found[:, *core] = (slopes.reshape(len(picture), *(s.stop - s.start for s in seen)) * scene.span)[:, *inside]
            del values, each, slopes, fed
    return total / count, found.div_(count)


def objective_of(scene: Scene, picture: np.ndarray, wanted: Wanted, tile: int = 512) -> float:
    """The objective alone, of a picture as colours × rows × columns."""
    import torch

    layer = scene.network.layer(wanted.layer) if wanted.layer else None
    total, count, whole = 0.0, 0, torch.as_tensor(picture)
    for core, seen in _tiles(whole.shape[1:], wanted, tile):
        each = _excited(answers_of(scene.network, scene.fed(whole[:, *seen]), wanted.layer), wanted, layer)
        own = _own(each, core, seen, wanted, whole.shape[1:])
        total, count = total + float(own.sum(dtype=torch.float64)), count + own.numel()
    return total / count


def _tiles(size: Sequence[int], wanted: Wanted, tile: int) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """The parts of a picture, and what is shown for each: it begins at a whole stride, so that places fall as they do."""
    spans = []
    for length, stride in zip(size, wanted.stride, strict=True):
        if length <= tile or not stride:
            spans.append([(slice(0, length), slice(0, length))])
            continue
        parts = math.ceil(length / tile)
        side = math.ceil(length / parts / stride) * stride
        margin = math.ceil(min(wanted.margin, max(64, wanted.margin / 2), tile // 4) / stride) * stride
        starts = range(0, length, side)
        spans.append(
            [
                (slice(a, min(a + side, length)), slice(max(0, a - margin), min(a + side + margin, length)))
                for a in starts
            ]
        )
    for rows, seen_rows in spans[0]:
        for columns, seen_columns in spans[1]:
            yield (rows, columns), (seen_rows, seen_columns)
