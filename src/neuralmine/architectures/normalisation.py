"""Batch (Ioffe & Szegedy 2015), layer (Ba et al. 2016) and group normalisation (Wu & He 2018)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import UnknownName, UsageError
from .convolution import slopes
from .terms import Formula, Index, Numbers, Operand, Rule, Term

KINDS = ("batch", "layer", "group")


def normalisation(
    kind: str = "batch", width: int = 4, *, maps: bool = False, groups: int = 2, eps: float = 1e-5
) -> nn.Sequential:
    """One layer that normalises: "batch" each of `width` units (or maps) over the batch, "layer" each item over its units,
    "group" each item over the units of each of `groups`.

    Takes b × width; with `maps` (batch only) b × width × h × w. In float64. Raises UnknownName for another kind.

    >>> normalisation("layer", 3)(torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)).round(decimals=2).tolist()
    [[-1.22, 0.0, 1.22]]
    """
    if kind not in KINDS:
        raise UnknownName("normalisation", kind, KINDS)
    if kind == "layer":
        layer: nn.Module = nn.LayerNorm(width, eps, dtype=torch.float64)
    elif kind == "group":
        _checked(groups, width)
        layer = nn.GroupNorm(groups, width, eps, dtype=torch.float64)
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
    groups: int = 2,
    eps: float = 1e-5,
    momentum: float = 0.1,
) -> dict[str, np.ndarray]:
    """Centre, divide by the deviation, scale and shift; and back, through the mean and the variance too.

    `example` is b × width (× h × w) for "batch", … × width for "layer", b × width for "group", whose mean and variance
    stand at each of a group's units. A batch's own mean and variance are used in
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
    if kind == "group":
        return _by_group(x, scale, shift, upstream, groups, eps)
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
        if (variance < 0).any():
            raise UsageError("A running variance is below 0.", "Give 0 or more.")
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


def _checked(groups: int, width: int) -> None:
    if groups < 1 or width % groups:
        raise UsageError(f"{groups} groups do not divide {width} units.", "Use groups=1.")


def _by_group(
    x: np.ndarray, scale: np.ndarray, shift: np.ndarray, upstream: Any, groups: int, eps: float
) -> dict[str, np.ndarray]:
    """Each group is a layer norm of its own: worked as one, side by side."""
    if x.ndim != 2:
        raise UsageError(f"An input of {x.shape} has no groups of units.", "Give b × width.")
    _checked(groups, x.shape[1])
    given = slopes(upstream, x)
    parts = []
    for columns in np.split(np.arange(x.shape[1]), groups):
        weights = {"normalisation.weight": scale[columns], "normalisation.bias": shift[columns]}
        part = arithmetic(x[:, columns], weights, given[:, columns], kind="layer", eps=eps)
        # One mean for the group: said at each of its units.
        parts.append({k: v if v.shape[-1] == len(columns) else v.repeat(len(columns), -1) for k, v in part.items()})
    return {key: np.concatenate([part[key] for part in parts], -1) for key in parts[0]}


def formulas(
    numbers: Numbers,
    *,
    kind: str = "batch",
    groups: int = 2,
    eps: float = 1e-5,
    momentum: float = 0.1,
    training: bool = True,
) -> dict[str, Formula]:
    """Where each number of `arithmetic` came from, for an input of b × width, or of maps (b × width × h × w).

    Raises UsageError for other inputs.
    """
    shape = numbers["input"].shape
    maps = len(shape) == 4 and kind == "batch"
    if len(shape) != 2 and not maps:
        raise UsageError(f"An input of {shape} is not opened.", "Give b × width, or maps to a batch norm.")
    size = shape[1] // groups
    own = training or kind != "batch"  # its own mean and variance, not the running ones
    places = "b u Y X" if maps else "b u"

    def together(index: Index) -> list[Index]:
        """The places that share the mean that stands at `index`."""
        if kind == "batch":
            return [(b, index[1], *inside) for b in range(shape[0]) for inside in np.ndindex(shape[2:])]
        first = index[1] // size * size if kind == "group" else 0
        return [(index[0], u) for u in range(first, first + (size if kind == "group" else shape[1]))]

    def statistic(index: Index) -> Index:
        """Where the mean of this place stands."""
        if kind == "batch":
            return (0, index[1], *(0 for _ in shape[2:]))
        return (index[0], 0) if kind == "layer" else index

    def over(coefficient: float, *arrays: str) -> Rule:
        return lambda at: [Term(coefficient, tuple(Operand(a, place) for a in arrays)) for place in together(at)]

    count = len(together((0,) * len(shape)))
    dims = {"batch": "z u v w" if maps else "z u", "layer": "b z", "group": "b u"}[kind]
    whole = {
        "batch": "all places of this map, in all examples" if maps else "all examples",
        "layer": "all units of this example",
        "group": "the units of this group, in this example",
    }[kind]

    def back(at: Index) -> list[Term]:
        mean, variance = (Operand(name, statistic(at)) for name in ("d_mean", "d_variance"))
        return [
            Term(1.0, (Operand("d_centred", at),)),
            Term(2 / count, (variance, Operand("centred", at))),
            Term(1 / count, (mean,)),
        ]

    def cubed(at: Index) -> list[Term]:
        inverse = Operand("inverse_deviation", at, 3)
        return [
            Term(-0.5, (Operand("d_normalised", place), Operand("centred", place), inverse)) for place in together(at)
        ]

    def scaled(name: str) -> Rule:
        return lambda at: [Term(1.0, (Operand(name, at), Operand("inverse_deviation", statistic(at))))]

    found = {
        "input": Formula(places, "What goes in: one row for each example."),
        "normalisation.weight": Formula("u", "The scale: what the normalised number is multiplied by."),
        "normalisation.bias": Formula("u", "The shift: what is added at the end."),
        "mean": Formula(dims, f"The mean over {whole}.", over(1 / count, "input")),
        "centred": Formula(
            places,
            "The number − its mean.",
            lambda at: [Term(1.0, (Operand("input", at),)), Term(-1.0, (Operand("mean", statistic(at)),))],
        ),
        "variance": Formula(dims, f"The mean of the squares over {whole}.", over(1 / count, "centred", "centred")),
        "inverse_deviation": Formula(
            dims,
            "1 ÷ √(variance + a little, so that it is never a division by 0).",
            lambda at: [Term(1.0, (Operand("variance", at),)), Term(eps)],
            "1/√",
        ),
        "normalised": Formula(
            places, "Centred ÷ deviation: mean 0 and variance 1." if own else "Centred ÷ deviation.", scaled("centred")
        ),
        "output": Formula(
            places, "Scaled and shifted.", f"normalised[{places}] normalisation.weight[u] + normalisation.bias[u]"
        ),
        "d_output": Formula(places, "The slope coming in: how the loss moves with this output."),
        "d_normalisation.weight": Formula(
            "u", "How the loss moves with this scale.", f"d_output[{places}] normalised[{places}]"
        ),
        "d_normalisation.bias": Formula("u", "How the loss moves with this shift.", f"d_output[{places}]"),
        "d_normalised": Formula(
            places, "The slope before scale and shift.", f"d_output[{places}] normalisation.weight[u]"
        ),
        "d_centred": Formula(places, "What flows straight back, past mean and variance.", scaled("d_normalised")),
    }
    for name in ("mean", "var"):
        if f"normalisation.running_{name}" not in numbers:
            continue
        now = "mean" if name == "mean" else "variance"
        zeros = "0 u 0 0" if maps else "0 u"
        found[f"normalisation.running_{name}"] = Formula("u", f"The running {now}, of the batches before this one.")
        if own:
            # The running variance is that of the population: n − 1.
            share = momentum * (count / (count - 1) if name == "var" else 1)
            found[f"running_{name}"] = Formula(
                "u",
                f"The running {now} after this batch: {momentum:g} of the way to the batch’s own"
                + (" (× n ÷ (n − 1))." if name == "var" else "."),
                f"{1 - momentum!r} normalisation.running_{name}[u] + {share!r} {now}[{zeros}]",
            )
        else:
            found[now] = Formula(
                dims, f"The running {now}: a constant here, whatever the batch.", f"normalisation.running_{name}[u]"
            )
    if not own:  # the statistics are constants: nothing flows back through them
        return found | {"d_input": Formula(places, "Straight back: the only way.", f"d_centred[{places}]")}
    return found | {
        "d_variance": Formula(dims, f"What flows back through the variance, from {whole}.", cubed),
        "d_mean": Formula(dims, f"What flows back through the mean, from {whole}.", over(-1.0, "d_centred")),
        "d_input": Formula(places, "Straight back, through the variance, and through the mean.", back),
    }
