"""Batch normalisation (Ioffe & Szegedy 2015) and layer normalisation (Ba et al. 2016)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import UnknownName, UsageError
from .convolution import slopes

KINDS = ("batch", "layer")


def normalisation(kind: str = "batch", width: int = 4, *, maps: bool = False, eps: float = 1e-5) -> nn.Sequential:
    """One layer that normalises: "batch" each of `width` units (or maps) over the batch, "layer" each item over its units.

    Takes b × width; with `maps` (batch only) b × width × h × w. In float64. Raises UnknownName for another kind.

    >>> normalisation("layer", 3)(torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)).round(decimals=2).tolist()
    [[-1.22, 0.0, 1.22]]
    """
    if kind not in KINDS:
        raise UnknownName("normalisation", kind, KINDS)
    if kind == "layer":
        layer: nn.Module = nn.LayerNorm(width, eps, dtype=torch.float64)
    else:
        layer = (nn.BatchNorm2d if maps else nn.BatchNorm1d)(width, eps, dtype=torch.float64)
    return nn.Sequential(OrderedDict(normalisation=layer))


def arithmetic(
    example: Any,
    weights: Mapping[str, Any],
    upstream: Any = None,
    *,
    kind: str = "batch",
    training: bool = True,
    eps: float = 1e-5,
    momentum: float = 0.1,
) -> dict[str, np.ndarray]:
    """Centre, divide by the deviation, scale and shift; and back, through the mean and the variance too.

    `example` is b × width (× h × w) for "batch", … × width for "layer". A batch's own mean and variance are used in
    training, and move the running ones; otherwise the running ones are used, which are constants on the way back.
    d_centred is what flows back past the variance, d_variance and d_mean what flows through them.
    Raises UnknownName for another kind, UsageError when the weights do not fit.

    >>> worked = arithmetic([[1.0], [3.0]], {"normalisation.weight": [2.0], "normalisation.bias": [0.5]}, eps=0)
    >>> worked["mean"].tolist(), worked["normalised"].tolist(), worked["output"].tolist(), worked["d_input"].tolist()
    ([[2.0]], [[-1.0], [1.0]], [[-1.5], [2.5]], [[0.0], [0.0]])
    """
    if kind not in KINDS:
        raise UnknownName("normalisation", kind, KINDS)
    x = np.asarray(example, dtype=np.float64)
    scale, shift = (np.asarray(weights[f"normalisation.{name}"], dtype=np.float64) for name in ("weight", "bias"))
    units = 1 if kind == "batch" else x.ndim - 1
    if x.ndim < 1 + (kind == "batch") or scale.shape != (x.shape[units],):
        raise UsageError(f"An input of {x.shape} does not fit {scale.size} scales.", "Give one scale for each unit.")
    shape = tuple(-1 if axis == units else 1 for axis in range(x.ndim))
    # A batch norm takes the mean over all but the units, a layer norm over the units.
    over = tuple(axis for axis in range(x.ndim) if axis != 1) if kind == "batch" else (x.ndim - 1,)
    own = training or kind == "layer"
    worked: dict[str, np.ndarray] = {"input": x}
    if own:
        mean = x.mean(over, keepdims=True)
        variance = ((x - mean) ** 2).mean(over, keepdims=True)
    else:
        mean, variance = (
            np.asarray(weights[f"normalisation.running_{name}"], dtype=np.float64).reshape(shape)
            for name in ("mean", "var")
        )
    count = int(np.prod([x.shape[axis] for axis in over]))
    if kind == "batch" and own:
        if count < 2:
            raise UsageError("One value for each unit has no variance.", "Give more examples.")
        # The running variance is that of the population: n − 1.
        for name, now in (("mean", mean), ("var", variance * count / (count - 1))):
            old = weights.get(f"normalisation.running_{name}")
            if old is not None:
                worked[f"running_{name}"] = (1 - momentum) * np.asarray(old, float) + momentum * now.reshape(-1)
    centred = x - mean
    inverse = 1 / np.sqrt(variance + eps)
    normalised = centred * inverse
    output = normalised * scale.reshape(shape) + shift.reshape(shape)
    d_output = slopes(upstream, output)
    others = tuple(axis for axis in range(x.ndim) if axis != units)
    d_normalised = d_output * scale.reshape(shape)
    d_centred = d_normalised * inverse
    d_input = d_centred
    if own:
        d_variance = (d_normalised * centred).sum(over, keepdims=True) * -0.5 * inverse**3
        d_mean = -d_centred.sum(over, keepdims=True)  # the variance's own share is 0: Σ centred = 0
        d_input = d_centred + d_variance * 2 * centred / count + d_mean / count
        worked |= {"d_variance": d_variance, "d_mean": d_mean}
    return {
        **worked, "mean": mean, "variance": variance, "centred": centred, "inverse_deviation": inverse,
        "normalised": normalised, "output": output, "d_output": d_output,
        "d_normalisation.weight": (d_output * normalised).sum(others), "d_normalisation.bias": d_output.sum(others),
        "d_normalised": d_normalised, "d_centred": d_centred, "d_input": d_input,
    }  # fmt: skip
