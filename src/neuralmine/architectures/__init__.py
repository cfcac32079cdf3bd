"""Small networks defined here, built from a plain description."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import NetworkError, UnknownName

if TYPE_CHECKING:
    import torch

NAMES = ("mlp",)


def build(description: Mapping[str, Any]) -> torch.nn.Module:
    """A module from its description: {"name": "mlp", "sizes": [64, 16, 10], "activation": "sigmoid", ...}.

    Raises UnknownName for an architecture that is not here, NetworkError for options it does not take.

    >>> sum(p.numel() for p in build({"name": "mlp", "sizes": [784, 16, 16, 10]}).parameters())
    13002
    """
    options = dict(description)
    name = options.pop("name", "mlp")
    if name not in NAMES:
        raise UnknownName("architecture", name, NAMES)
    from .mlp import mlp

    try:
        return mlp(**options)
    except TypeError as error:
        raise NetworkError(
            f"The architecture {name!r} does not take that: {error}.", "See neuralmine.architectures."
        ) from None
