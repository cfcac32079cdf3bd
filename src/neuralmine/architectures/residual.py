"""A residual block: what two convolutions make of the input is added to it (He et al. 2016), without normalisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from .convolution import arithmetic as convolved
from .convolution import drawn, slopes
from .convolution import formulas as convolved_formulas
from .terms import Formula, Numbers, prefixed


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
        "input": first["input"], **worked, "first_open": (first["output"] > 0).astype(float), "hidden": hidden, "shortcut": shortcut, "total": total, "output": output,
        "d_output": d_output, "open": (total > 0).astype(float), "d_total": d_total, "d_hidden": second["d_input"],
        "d_input_by_block": first["d_input"], "d_input_by_shortcut": by_shortcut,
        "d_input": first["d_input"] + by_shortcut,
    }  # fmt: skip


def formulas(numbers: Numbers, *, stride: int = 1) -> dict[str, Formula]:
    """Where each number of `arithmetic` came from."""
    found = {
        **placed("first", numbers, "input[c Y X]", "d_hidden[o i j] first_open[o i j]", stride=stride, padding=1),
        **placed("second", numbers, "hidden[c Y X]", "d_total[o i j]", padding=1),
    }
    straight = "input[o i j]"
    if "projection.weight" in numbers:
        found |= placed("projection", numbers, "input[c Y X]", "d_total[o i j]", stride=stride)
        straight = "projection.output[o i j]"
    return found | {
        "input": Formula("c Y X", "What goes in."),
        "first_open": Formula("o i j", "1 where the ReLU lets through, 0 where it does not.", "first.output[o i j]", "open"),
        "hidden": Formula("o i j", "The first convolution, 0 where it is below 0.", "first.output[o i j]", "relu"),
        "shortcut": Formula("o i j", "What comes along the short road: the input.", straight),
        "total": Formula("o i j", "The long road + the short one.", "second.output[o i j] + shortcut[o i j]"),
        "output": Formula("o i j", "The sum, 0 where it is below 0.", "total[o i j]", "relu"),
        "d_output": Formula("o i j", "The slope coming in: how the loss moves with this output."),
        "open": Formula("o i j", "1 where the last ReLU lets through, 0 where it does not.", "total[o i j]", "open"),
        "d_total": Formula("o i j", "The slope at the sum: both roads get all of it.", "d_output[o i j] open[o i j]"),
        "d_hidden": Formula("c Y X", "What the second convolution sends back.", "second.d_input[c Y X]"),
        "d_input_by_block": Formula("c Y X", "What comes back along the long road.", "first.d_input[c Y X]"),
        "d_input_by_shortcut": Formula(
            "c Y X",
            "What comes back along the short road.",
            "projection.d_input[c Y X]" if "projection.weight" in numbers else "d_total[c Y X]",
        ),
        "d_input": Formula(
            "c Y X", "Both roads' slopes.", "d_input_by_block[c Y X] + d_input_by_shortcut[c Y X]"
        ),
    }  # fmt: skip


def placed(name: str, numbers: Numbers, source: str, slope: str, **options: int) -> dict[str, Formula]:
    """A convolution's formulas inside a block: its input comes from `source`, the slope of its output from `slope`."""
    inner = {"convolution.bias": numbers[f"{name}.bias"]} if f"{name}.bias" in numbers else {}
    found = prefixed(
        convolved_formulas(inner, **options),
        lambda key: key.replace("convolution", name) if "convolution" in key else f"{name}.{key}",
    )
    return found | {
        f"{name}.input": Formula("c Y X", "What goes into this convolution.", source),
        f"{name}.d_output": Formula("o i j", "The slope at this convolution's output.", slope),
    }


def named(weights: Mapping[str, Any], name: str) -> dict[str, Any]:
    """One convolution's weights, as `convolution.arithmetic` names them."""
    return {f"convolution.{key}": weights[f"{name}.{key}"] for key in ("weight", "bias") if f"{name}.{key}" in weights}


def under(name: str, worked: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A convolution's arithmetic with its name before each entry; its weights' slopes as `d_name.weight`."""
    return {
        key.replace("convolution", name) if "convolution" in key else f"{name}.{key}": v for key, v in worked.items()
    }
