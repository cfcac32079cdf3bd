"""Pooling: the largest or the mean of each window; switches remember where the largest was (Zeiler & Fergus 2014)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from ..errors import UnknownName, UsageError
from .convolution import of_rank, slopes, starts
from .terms import Formula, Numbers, Term

KINDS = ("max", "average")


def pooling(kind: str = "max", size: int = 2, *, stride: int | None = None, padding: int = 0) -> nn.Sequential:
    """One pooling layer: b × c × h × w to b × c × h' × w'. `stride` is `size` when not given.

    Raises UnknownName for another kind.

    >>> import torch
    >>> pooling("average")(torch.ones(1, 3, 4, 4)).shape
    torch.Size([1, 3, 2, 2])
    """
    if kind not in KINDS:
        raise UnknownName("pooling", kind, KINDS)
    layer = nn.MaxPool2d(size, stride, padding) if kind == "max" else nn.AvgPool2d(size, stride, padding)
    return nn.Sequential(OrderedDict(pooling=layer))


def arithmetic(
    example: Any,
    weights: Mapping[str, Any] | None = None,
    upstream: Any = None,
    *,
    kind: str = "max",
    size: int = 2,
    stride: int | None = None,
    padding: int = 0,
) -> dict[str, np.ndarray]:
    """The windows, what came of each, and the way back. `example` is c × h × w.

    windows and d_windows are c × h' × w' × size × size; a padded place holds −∞ for max and 0 for the mean.
    switches (max only) are c × h' × w': the index, row by row, of the largest in the input; the first when several are.
    shares are what part of an output's slope each place of its window gets: all to the largest, or to each the same.
    Raises UnknownName for another kind, UsageError for a padding above half the size.

    >>> arithmetic([[[1, 2], [4, 3]]], kind="average")["d_input"].tolist()
    [[[0.25, 0.25], [0.25, 0.25]]]
    """
    if kind not in KINDS:
        raise UnknownName("pooling", kind, KINDS)
    if not 0 <= padding <= size / 2:
        raise UsageError(f"padding is {padding}.", f"Use 0 to {size // 2}, half the size.")
    stride = stride or size
    x = of_rank(example, 3, "input")
    around = ((0, 0), (padding, padding), (padding, padding))
    padded = np.pad(x, around, constant_values=-np.inf if kind == "max" else 0)
    rows, columns = starts(padded.shape[1], size, stride), starts(padded.shape[2], size, stride)
    windows = np.empty((len(x), len(rows), len(columns), size, size))
    for i, y in enumerate(rows):
        for j, z in enumerate(columns):
            windows[:, i, j] = padded[:, y : y + size, z : z + size]
    flat = windows.reshape(*windows.shape[:3], -1)
    worked = {"input": x, "windows": windows}
    if kind == "max":
        place = flat.argmax(-1)
        y = np.array(rows)[:, None] + place // size - padding
        z = np.array(columns) + place % size - padding
        worked |= {"switches": y * x.shape[2] + z, "output": flat.max(-1)}
        share = (np.arange(size * size) == place[..., None]).astype(float)  # all to the largest
    else:
        worked["output"] = flat.mean(-1)
        share = np.full(flat.shape, 1 / size**2)  # to each the same
    d_output = slopes(upstream, worked["output"])
    worked["shares"] = share.reshape(windows.shape)
    d_windows = worked["shares"] * d_output[..., None, None]
    d_padded = np.zeros_like(padded)
    for i, y in enumerate(rows):
        for j, z in enumerate(columns):
            d_padded[:, y : y + size, z : z + size] += d_windows[:, i, j]
    inside = d_padded[:, padding : padding + x.shape[1], padding : padding + x.shape[2]]
    return {**worked, "d_output": d_output, "d_windows": d_windows, "d_input": inside}


def formulas(
    numbers: Numbers, *, kind: str = "max", size: int = 2, stride: int | None = None, padding: int = 0
) -> dict[str, Formula]:
    """Where each number of `arithmetic` came from."""
    stride = stride or size
    shares = numbers["shares"]
    y, x = f"{stride}i+y-{padding}", f"{stride}j+x-{padding}"
    largest = kind == "max"
    outside = "or −∞" if largest else ""  # what stands on the rim

    found = {
        "input": Formula("c Y X", "What goes in."),
        "windows": Formula("c i j y x", "What this output looks at.", f"input[c {y} {x}]", outside),
        "output": Formula("c i j", "The largest of the window.", "windows[c i j y x]", "largest")
        if largest
        else Formula("c i j", "The mean of the window.", f"{1 / size**2!r} windows[c i j y x]"),
        "shares": Formula(
            "c i j y x",
            "The switch: 1 where the largest stands (the first, when several are), 0 elsewhere."
            if largest
            else "Every place of the window has the same share.",
            lambda index: [Term(float(shares[index]))],
        ),
        "d_output": Formula("c i j", "The slope coming in: how the loss moves with this output."),
        "d_windows": Formula(
            "c i j y x", "What one output sends back: slope × share.", "d_output[c i j] shares[c i j y x]"
        ),
        "d_input": Formula(
            "c Y X",
            "What all windows over this place send back.",
            f"d_windows[c (Y-y+{padding})/{stride} (X-x+{padding})/{stride} y x]",
        ),
    }
    if largest:
        switches = numbers["switches"]
        found["switches"] = Formula(
            "c i j",
            "Which place of the input was the largest, counted row by row.",
            lambda i: [Term(float(switches[i]))],
        )
    return found
