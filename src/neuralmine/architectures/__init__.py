"""Small networks defined here, built from a plain description, and the pieces that larger ones are made of.

Each piece is a file: a builder of a small net; `arithmetic`, which works one example by hand in numpy, forward and
backward, and gives every operand and intermediate by name; and `formulas`, which says of each what it was made of.
`d_x` is the slope of the loss with respect to x, where the loss is the sum of outputs × upstream.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import NetworkError, UnknownName

if TYPE_CHECKING:
    import torch

    from .terms import Formula

PIECES = ("dense", "convolution", "pooling", "normalisation", "residual", "inception", "recurrent", "attention")
NAMES = ("mlp", *PIECES)


def build(description: Mapping[str, Any]) -> torch.nn.Module:
    """A module from its description: {"name": "mlp", "sizes": [64, 16, 10], "activation": "sigmoid", ...}.

    Raises UnknownName for an architecture that is not here, NetworkError for options it does not take.

    >>> sum(p.numel() for p in build({"name": "mlp", "sizes": [784, 16, 16, 10]}).parameters())
    13002
    >>> build({"name": "attention", "width": 8, "head": 4, "causal": True}).query
    Linear(in_features=8, out_features=4, bias=True)
    """
    options = dict(description)
    name = options.pop("name", "mlp")
    if name not in NAMES:
        raise UnknownName("architecture", name, NAMES)
    try:
        return getattr(importlib.import_module(f".{name}", __name__), name)(**options)
    except TypeError as error:
        raise NetworkError(
            f"The architecture {name!r} does not take that: {error}.", "See neuralmine.architectures."
        ) from None


def arithmetic(
    name: str, example: Any, weights: Mapping[str, Any], upstream: Any = None, **options: Any
) -> dict[str, np.ndarray]:
    """A piece's forward and backward worked by hand on one example: every operand and intermediate, by name.

    `weights` are those of the piece's builder, by the names of its state_dict; `upstream` is the slope of the loss
    with respect to the output, 1 everywhere when not given; `options` are the builder's.
    Raises UnknownName for a piece that is not here, UsageError for shapes that do not fit.

    >>> worked = arithmetic("pooling", [[[1, 2], [4, 3]]], {}, kind="max")
    >>> float(worked["output"][0, 0, 0]), int(worked["switches"][0, 0, 0]), worked["d_input"].tolist()
    (4.0, 2, [[[0.0, 0.0], [1.0, 0.0]]])
    """
    if name not in PIECES:
        raise UnknownName("piece", name, PIECES)
    return importlib.import_module(f".{name}", __name__).arithmetic(example, weights, upstream, **options)


def formulas(name: str, numbers: Mapping[str, np.ndarray], **options: Any) -> dict[str, Formula]:
    """How each number of a piece's arithmetic was made, by array. `numbers` are `arithmetic`'s and the weights.

    See neuralmine.architectures.terms.explained, which opens one number. Raises UnknownName.

    >>> numbers = {"input": np.ones((1, 2)), "sum.weight": np.ones((1, 2)), "sum.bias": np.ones(1)}
    >>> formulas("dense", numbers, activation="relu")["sums"].rule
    'products[b o n] + sum.bias[o]'
    """
    if name not in PIECES:
        raise UnknownName("piece", name, PIECES)
    return importlib.import_module(f".{name}", __name__).formulas(numbers, **options)
