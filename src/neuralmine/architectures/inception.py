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
from .pooling import formulas as pooled_formulas
from .residual import named, placed, under
from .terms import Formula, Numbers, Operand, Term, prefixed

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

    `example` is c × h × w. Each layer's own arithmetic stands under its name: "three.windows", "pool.switches";
    "three.rectified" is what its ReLU lets through, where "three.open" is 1. Raises UsageError for shapes that do not fit.

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
            worked |= {
                **under(name, way),
                f"{name}.rectified": np.maximum(forward[name], 0),
                f"{name}.open": (forward[name] > 0).astype(float),
            }
            slope = way["d_input"]
        if branch == "pool":
            way = pooled(x, {}, slope, **pool)
            worked |= {f"pool.{key}": value for key, value in way.items()}
            slope = way["d_input"]
        worked[f"d_input_by_{branch}"] = slope
        d_input = d_input + slope
    return {**worked, "d_input": d_input}


def formulas(numbers: Numbers) -> dict[str, Formula]:
    """Where each number of `arithmetic` came from."""
    ends = [layers[-1] for layers in BRANCHES.values()]
    widths = [len(numbers[f"{end}.output"]) for end in ends]
    pool = {key.removeprefix("pool."): value for key, value in numbers.items() if key.startswith("pool.")}
    found = pooled_inside(pool, numbers)
    first = 0
    for (branch, layers), width in zip(BRANCHES.items(), widths, strict=True):
        for place, name in enumerate(layers):
            before = f"{layers[place - 1]}.rectified" if place else ("pool.output" if branch == "pool" else "input")
            after = f"{layers[place + 1]}.d_input[o i j]" if place + 1 < len(layers) else f"d_output[o+{first} i j]"
            slope = f"{after} {name}.open[o i j]"
            found |= placed(name, numbers, f"{before}[c Y X]", slope, padding=SIZES[name] // 2)
            sums = f"{name}.output[o i j]"
            found[f"{name}.rectified"] = Formula("o i j", "The sums, 0 where they are below 0.", sums, "relu")
            found[f"{name}.open"] = Formula("o i j", "1 where the ReLU lets through, 0 where not.", sums, "open")
        way = "pool" if branch == "pool" else layers[0]
        found[f"d_input_by_{branch}"] = Formula("c Y X", "What this branch sends back.", f"{way}.d_input[c Y X]")
        first += width

    def stacked(index: tuple[int, ...]) -> list[Term]:
        o, i, j = index
        for end, width in zip(ends, widths, strict=True):
            if o < width:
                return [Term(1.0, (Operand(f"{end}.rectified", (o, i, j)),))]
            o -= width
        return []

    return found | {
        "input": Formula("c Y X", "What goes in."),
        "output": Formula("o i j", "The maps of all branches, one after the other.", stacked),
        "d_output": Formula("o i j", "The slope coming in: how the loss moves with this output."),
        "d_input": Formula(
            "c Y X",
            "What all four branches send back.",
            " + ".join(f"d_input_by_{branch}[c Y X]" for branch in BRANCHES),
        ),
    }


def pooled_inside(pool: Numbers, numbers: Numbers) -> dict[str, Formula]:
    """The formulas of the block's pooling, whose input is the block's and whose slope comes from its 1 × 1."""
    found = prefixed(pooled_formulas(pool, kind="max", size=3, stride=1, padding=1), lambda key: f"pool.{key}")
    return found | {
        "pool.input": Formula("c Y X", "What goes into the pooling.", "input[c Y X]"),
        "pool.d_output": Formula("c i j", "What the 1 × 1 after it sends back.", "pool_project.d_input[c i j]"),
    }
