"""Optimizers: torch's own by name, and the ones torch lacks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from ..errors import UnknownName, UsageError
from .one_weight_at_a_time import OneWeightAtATime

__all__ = ["NAMES", "OneWeightAtATime", "make"]

NAMES = {
    "one_weight_at_a_time": "one weight, one hop down the exact loss, then the next",
    "gradient_descent": "all weights at once, down the slope of the whole training set",
    "sgd": "all weights at once, down the slope of a few images",
    "adam": "like sgd, with a step size of its own for every weight",
}
_CLASSES = {"gradient_descent": "SGD", "sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}


def make(name: str, parameters: Iterable[torch.nn.Parameter], lr: float, **options: Any) -> torch.optim.Optimizer:
    """A torch optimizer by our name or by the name of any class in torch.optim.

    Raises UnknownName for another name, UsageError for options that the optimizer does not take.

    >>> type(make("sgd", [torch.nn.Parameter(torch.zeros(1))], 0.1, momentum=0.9)).__name__
    'SGD'
    """
    made = getattr(torch.optim, _CLASSES.get(name, name), None)
    if not (isinstance(made, type) and issubclass(made, torch.optim.Optimizer)):
        known = [n for n in dir(torch.optim) if isinstance(getattr(torch.optim, n), type) and n != "Optimizer"]
        raise UnknownName("optimizer", name, [*NAMES, "adamw", *known])
    try:
        return made(parameters, lr=lr, **options)  # type: ignore[call-arg]
    except TypeError as error:
        raise UsageError(f"{name} does not take that: {error}.", "Leave the option out.") from None
