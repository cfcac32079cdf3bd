"""Convolution: a window of the input × a kernel, summed, at every place (LeCun et al. 1989; groups: Krizhevsky 2012)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import UsageError
from .terms import Formula, Numbers


def convolution(
    inputs: int = 1,
    outputs: int = 4,
    size: int = 3,
    *,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
    bias: bool = True,
    seed: int = 0,
) -> nn.Sequential:
    """One layer of `outputs` kernels, `size` × `size`: b × inputs × h × w to b × outputs × h' × w', in float64.

    Raises UsageError when `groups` does not divide both.

    >>> convolution(2, 4, stride=2)(torch.zeros(1, 2, 9, 9, dtype=torch.float64)).shape
    torch.Size([1, 4, 4, 4])
    """
    if groups < 1 or inputs % groups or outputs % groups:
        raise UsageError(f"{groups} groups do not divide {inputs} inputs and {outputs} outputs.", "Use groups=1.")
    layer = nn.Conv2d(inputs, outputs, size, stride, padding, groups=groups, bias=bias, dtype=torch.float64)
    return drawn(nn.Sequential(OrderedDict(convolution=layer)), seed)


def arithmetic(
    example: Any,
    weights: Mapping[str, Any],
    upstream: Any = None,
    *,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
) -> dict[str, np.ndarray]:
    """Window × kernel at each place, and back. `example` is c × h × w; the kernel o × c/groups × y × x.

    windows, products, d_windows: o × h' × w' × c/groups × y × x, what each output looks at, times its kernel, and the
    upstream × kernel that flows back; d_products = upstream × window, whose sum over places is the kernel's slope.
    Raises UsageError for shapes that do not fit.

    >>> worked = arithmetic(np.arange(9.0).reshape(1, 3, 3), {"convolution.weight": np.ones((1, 1, 2, 2))})
    >>> worked["windows"][0, 0, 1, 0].tolist(), worked["output"].tolist(), worked["d_input"].tolist()
    ([[1.0, 2.0], [4.0, 5.0]], [[[8.0, 12.0], [20.0, 24.0]]], [[[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]])
    """
    x, kernel = of_rank(example, 3, "input"), of_rank(weights["convolution.weight"], 4, "kernel")
    bias = weights.get("convolution.bias")
    outputs, depth, size_y, size_x = kernel.shape
    if depth * groups != len(x) or outputs % groups:
        raise UsageError(
            f"A kernel of {kernel.shape} in {groups} groups does not fit {len(x)} inputs.",
            "Its second axis × groups must be the inputs.",
        )
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    rows, columns = starts(padded.shape[1], size_y, stride), starts(padded.shape[2], size_x, stride)
    windows = np.empty((outputs, len(rows), len(columns), depth, size_y, size_x))
    for o in range(outputs):
        first = o // (outputs // groups) * depth  # the inputs of this output's group
        for i, y in enumerate(rows):
            for j, z in enumerate(columns):
                windows[o, i, j] = padded[first : first + depth, y : y + size_y, z : z + size_x]
    products = windows * kernel[:, None, None]
    output = products.sum((3, 4, 5))
    if bias is not None:
        output = output + np.asarray(bias, float)[:, None, None]
    d_output = slopes(upstream, output)
    d_products = windows * d_output[..., None, None, None]
    d_windows = kernel[:, None, None] * d_output[..., None, None, None]
    d_padded = np.zeros_like(padded)
    for o in range(outputs):
        first = o // (outputs // groups) * depth
        for i, y in enumerate(rows):
            for j, z in enumerate(columns):
                d_padded[first : first + depth, y : y + size_y, z : z + size_x] += d_windows[o, i, j]
    worked = {
        "input": x, "padded": padded, "windows": windows, "kernel": kernel, "products": products, "output": output,
        "d_output": d_output, "d_products": d_products, "d_convolution.weight": d_products.sum((1, 2)),
        "d_windows": d_windows, "d_padded": d_padded,
        "d_input": d_padded[:, padding : padding + x.shape[1], padding : padding + x.shape[2]],
    }  # fmt: skip
    return worked if bias is None else {**worked, "d_convolution.bias": d_output.sum((1, 2))}


def formulas(numbers: Numbers, *, stride: int = 1, padding: int = 0, groups: int = 1) -> dict[str, Formula]:
    """Where each number of `arithmetic` came from. Raises UsageError for more than one group."""
    if groups != 1:
        raise UsageError(f"The numbers of {groups} groups are not opened.", "Use groups=1.")
    y, x = f"{stride}i+y", f"{stride}j+x"
    found = {
        "input": Formula("c Y X", "What goes in."),
        "kernel": Formula("o c y x", "The kernel's number at this place of the window.", "convolution.weight[o c y x]"),
        "convolution.weight": Formula("o c y x", "One weight: the same at every place of the input."),
        "padded": Formula(
            "c P Q",
            "The input with a rim of zeros.",
            f"input[c P-{padding} Q-{padding}]" if padding else "input[c P Q]",
        ),
        "windows": Formula(
            "o i j c y x", "What this output looks at.", f"padded[c {y} {x}]" if padding else f"input[c {y} {x}]"
        ),
        "products": Formula("o i j c y x", "Window × kernel.", "windows[o i j c y x] kernel[o c y x]"),
        "output": Formula("o i j", "All products of one window, plus the bias.", "products[o i j c y x]"),
        "d_output": Formula("o i j", "The slope coming in: how the loss moves with this output."),
        "d_products": Formula(
            "o i j c y x",
            "One place's part of a weight's slope: slope × window.",
            "d_output[o i j] windows[o i j c y x]",
        ),
        "d_convolution.weight": Formula(
            "o c y x", "How the loss moves with this weight: its parts at all places.", "d_products[o i j c y x]"
        ),
        "d_windows": Formula(
            "o i j c y x", "What one output sends back: slope × kernel.", "d_output[o i j] kernel[o c y x]"
        ),
        "d_padded": Formula(
            "c P Q",
            "What all windows over this place send back.",
            f"d_windows[o (P-y)/{stride} (Q-x)/{stride} c y x]",
        ),
        "d_input": Formula(
            "c Y X",
            "What all windows over this place send back.",
            f"d_windows[o (Y+{padding}-y)/{stride} (X+{padding}-x)/{stride} c y x]",
        ),
    }
    if "convolution.bias" in numbers:
        found["convolution.bias"] = Formula("o", "What is added at every place.")
        found["d_convolution.bias"] = Formula("o", "The slopes of all places, added up.", "d_output[o i j]")
        found["output"] = Formula("o i j", found["output"].about, "products[o i j c y x] + convolution.bias[o]")
    return found


def drawn(module: Any, seed: int) -> Any:
    """The module with its weights and biases uniform in ±1/√inputs, from `seed` alone; norms stay at 1 and 0."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        own = dict(part.named_parameters(recurse=False))
        if not own or isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)):
            continue
        fan_in = max(p[0].numel() for p in own.values())
        with torch.no_grad():
            for parameter in own.values():
                parameter.uniform_(-(fan_in**-0.5), fan_in**-0.5, generator=generator)
    return module


def of_rank(value: Any, rank: int, name: str) -> np.ndarray:
    """As float64. Raises UsageError when it has other axes."""
    array = np.asarray(value, dtype=np.float64)
    if array.ndim != rank:
        raise UsageError(f"The {name} has shape {array.shape}.", f"Give {rank} axes: one example, without a batch.")
    return array


def slopes(upstream: Any, output: np.ndarray) -> np.ndarray:
    """The slope of the loss with respect to the output; 1 everywhere when none is given."""
    given = np.ones_like(output) if upstream is None else np.asarray(upstream, dtype=np.float64)
    if given.shape != output.shape:
        raise UsageError(f"upstream has shape {given.shape}; the output has {output.shape}.", "Give one slope each.")
    return given


def starts(length: int, size: int, stride: int) -> range:
    """Where windows begin. Raises UsageError when none fits."""
    if size > length or stride < 1 or size < 1:
        raise UsageError(f"No window of {size} fits {length} values at stride {stride}.", "Use a smaller one, or pad.")
    return range(0, length - size + 1, stride)
