"""An inception block: windows of several sizes side by side, their maps stacked (Szegedy et al. 2015)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from .convolution import arithmetic as convolved
from .convolution import drawn, of_rank, slopes
from .pooling import arithmetic as pooled
from .residual import named, under

BRANCHES = {
    "one": ("one",),
    "three": ("three_reduce", "three"),
    "five": ("five_reduce", "five"),
    "pool": ("pool_project",),
}
SIZES = {"one": 1, "three_reduce": 1, "three": 3, "five_reduce": 1, "five": 5, "pool_project": 1}


class Inception(nn.Module):
    """1 × 1; 1 × 1 then 3 × 3; 1 × 1 then 5 × 5; 3 × 3 max pooling then 1 × 1: a ReLU after each, stacked by maps."""

    def __init__(self, inputs: int, outputs: int, reduced: int) -> None:
        super().__init__()
        for name, size in SIZES.items():
            fan_in = reduced if size > 1 else inputs
            width = reduced if name.endswith("reduce") else outputs
            self.add_module(name, nn.Conv2d(fan_in, width, size, padding=size // 2, dtype=torch.float64))
            self.add_module(f"{name}_relu", nn.ReLU())
        self.pool = nn.MaxPool2d(3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stacked = []
        for branch, layers in BRANCHES.items():
            way = self.pool(x) if branch == "pool" else x
            for name in layers:
                way = self.get_submodule(f"{name}_relu")(self.get_submodule(name)(way))
            stacked.append(way)
        return torch.cat(stacked, 1)


def inception(inputs: int = 2, outputs: int = 2, reduced: int = 1, *, seed: int = 0) -> Inception:
    """One block: b × inputs × h × w to b × 4 outputs × h × w, in float64; `reduced` maps before the larger windows.

    >>> inception()(torch.zeros(1, 2, 6, 6, dtype=torch.float64)).shape
    torch.Size([1, 8, 6, 6])
    """
    return drawn(Inception(inputs, outputs, reduced), seed)


def arithmetic(example: Any, weights: Mapping[str, Any], upstream: Any = None) -> dict[str, np.ndarray]:
    """The four branches side by side, and their slopes, which add up at the input: d_input_by_one + …

    `example` is c × h × w. Each layer's own arithmetic stands under its name: "three.windows", "pool.switches"; "three.rectified" is what its ReLU lets
    through. Raises UsageError for shapes that do not fit.

    >>> weights = {k: v.numpy() for k, v in inception(1, 1).state_dict().items()}
    >>> worked = arithmetic(np.ones((1, 3, 3)), weights)
    >>> parts = sum(worked[f"d_input_by_{branch}"] for branch in BRANCHES)
    >>> worked["output"].shape, bool(np.allclose(parts, worked["d_input"]))
    ((4, 3, 3), True)
    """
    x = of_rank(example, 3, "input")
    pool = {"kind": "max", "size": 3, "stride": 1, "padding": 1}
    forward: dict[str, np.ndarray] = {}
    before: dict[str, np.ndarray] = {}
    ends = []
    for branch, layers in BRANCHES.items():
        way = pooled(x, **pool)["output"] if branch == "pool" else x
        for name in layers:
            before[name] = way
            forward[name] = convolved(way, named(weights, name), padding=SIZES[name] // 2)["output"]
            way = np.maximum(forward[name], 0)
        ends.append(way)
    output = np.concatenate(ends)
    d_output = slopes(upstream, output)
    worked: dict[str, np.ndarray] = {"input": x, "output": output, "d_output": d_output}
    d_input = np.zeros_like(x)
    parts = np.split(d_output, np.cumsum([len(end) for end in ends])[:-1])
    for (branch, layers), slope in zip(BRANCHES.items(), parts, strict=True):
        for name in reversed(layers):
            slope = slope * (forward[name] > 0)
            way = convolved(before[name], named(weights, name), slope, padding=SIZES[name] // 2)
            worked |= {**under(name, way), f"{name}.rectified": np.maximum(forward[name], 0)}
            slope = way["d_input"]
        if branch == "pool":
            way = pooled(x, {}, slope, **pool)
            worked |= {f"pool.{key}": value for key, value in way.items()}
            slope = way["d_input"]
        worked[f"d_input_by_{branch}"] = slope
        d_input = d_input + slope
    return {**worked, "d_input": d_input}
