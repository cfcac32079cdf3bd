"""A residual block: what two convolutions make of the input is added to it (He et al. 2016), without normalisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from .convolution import arithmetic as convolved
from .convolution import drawn, slopes


class Residual(nn.Module):
    """relu(second(relu(first(x))) + x); x goes through a 1 × 1 `projection` when the number of maps or size changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, dtype=torch.float64)
        self.first_relu = nn.ReLU()
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, dtype=torch.float64)
        changes = inputs != outputs or stride > 1
        self.projection = nn.Conv2d(inputs, outputs, 1, stride, dtype=torch.float64) if changes else nn.Identity()
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.second(self.first_relu(self.first(x))) + self.projection(x))


def residual(inputs: int = 2, outputs: int = 2, *, stride: int = 1, seed: int = 0) -> Residual:
    """One block of two 3 × 3 convolutions and a shortcut: b × inputs × h × w to b × outputs × h' × w', in float64.

    >>> residual(2, 4, stride=2)(torch.zeros(1, 2, 6, 6, dtype=torch.float64)).shape
    torch.Size([1, 4, 3, 3])
    """
    return drawn(Residual(inputs, outputs, stride), seed)


def arithmetic(
    example: Any, weights: Mapping[str, Any], upstream: Any = None, *, stride: int = 1
) -> dict[str, np.ndarray]:
    """Both ways through the block, and both ways back: d_input = d_input_by_block + d_input_by_shortcut.

    `example` is c × h × w. Each convolution's own arithmetic stands under its name: "first.windows", "second.products".
    Raises UsageError for shapes that do not fit.

    >>> zero = {f"{n}.{k}": np.zeros((1, 1, 3, 3) if k == "weight" else 1) for n in ("first", "second") for k in ("weight", "bias")}
    >>> worked = arithmetic([[[1.0, -2.0]]], zero)  # a block of zeros lets the input pass, and its slope
    >>> worked["output"].tolist(), worked["d_input_by_shortcut"].tolist(), float(abs(worked["d_input_by_block"]).max())
    ([[[1.0, 0.0]]], [[[1.0, 0.0]]], 0.0)
    """
    first = convolved(example, named(weights, "first"), stride=stride, padding=1)
    hidden = np.maximum(first["output"], 0)
    second = convolved(hidden, named(weights, "second"), padding=1)
    projected = "projection.weight" in weights
    shortcut = (
        convolved(example, named(weights, "projection"), stride=stride)["output"] if projected else first["input"]
    )
    total = second["output"] + shortcut
    output = np.maximum(total, 0)
    d_output = slopes(upstream, output)
    d_total = d_output * (total > 0)
    second = convolved(hidden, named(weights, "second"), d_total, padding=1)
    d_first = second["d_input"] * (first["output"] > 0)
    first = convolved(example, named(weights, "first"), d_first, stride=stride, padding=1)
    worked = {**under("first", first), **under("second", second)}
    by_shortcut = d_total
    if projected:
        way = convolved(example, named(weights, "projection"), d_total, stride=stride)
        by_shortcut = way["d_input"]
        worked |= under("projection", way)
    return {
        "input": first["input"], **worked, "hidden": hidden, "shortcut": shortcut, "total": total, "output": output,
        "d_output": d_output, "d_total": d_total, "d_hidden": second["d_input"],
        "d_input_by_block": first["d_input"], "d_input_by_shortcut": by_shortcut,
        "d_input": first["d_input"] + by_shortcut,
    }  # fmt: skip


def named(weights: Mapping[str, Any], name: str) -> dict[str, Any]:
    """One convolution's weights, as `convolution.arithmetic` names them."""
    return {f"convolution.{key}": weights[f"{name}.{key}"] for key in ("weight", "bias") if f"{name}.{key}" in weights}


def under(name: str, worked: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A convolution's arithmetic with its name before each entry; its weights' slopes as `d_name.weight`."""
    return {
        key.replace("convolution", name) if "convolution" in key else f"{name}.{key}": v for key, v in worked.items()
    }
