"""Optimizers: torch's own by name, and the ones torch lacks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from ..errors import UnknownName, UsageError
from .one_weight_at_a_time import Hop, OneWeightAtATime

__all__ = ["NAMES", "Hop", "OneWeightAtATime", "make"]

NAMES = {
    "one_weight_at_a_time": "one weight, one hop down the exact loss, then the next",
    "gradient_descent": "all weights at once, down the slope of the whole training set",
    "sgd": "all weights at once, down the slope of a few images",
    "adam": "like sgd, with a step size of its own for every weight",
}


def make(
    name: str, parameters: torch.nn.Module | Iterable[torch.nn.Parameter], lr: float, **options: Any
) -> torch.optim.Optimizer:
    """An optimizer by our name or by the name of any class in torch.optim, in capitals or not.

    `parameters` are a module's, or the module. `options` are the optimizer's own (momentum, nesterov, …);
    "one_weight_at_a_time" takes the module, and `inputs` and `labels` among its options.

    Raises UnknownName for another name, UsageError for options that the optimizer does not take.

    >>> type(make("sgd", [torch.nn.Parameter(torch.zeros(1))], 0.1, momentum=0.9, nesterov=True)).__name__
    'SGD'
    """
    module = parameters if isinstance(parameters, torch.nn.Module) else None
    try:
        if name == "one_weight_at_a_time":
            if module is None:
                raise UsageError("One weight at a time needs the module, not its parameters.", "Give the module.")
            return OneWeightAtATime(module, rate=lr, **options)
        return _torch_class(name)(parameters if module is None else module.parameters(), lr=lr, **options)
    except UsageError:
        raise
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} does not take that: {error}.", "Leave the option out or change it.") from error


def _torch_class(name: str) -> Any:
    known = {
        n: c
        for n, c in vars(torch.optim).items()
        if isinstance(c, type) and issubclass(c, torch.optim.Optimizer) and c is not torch.optim.Optimizer
    }
    lowered = {n.lower(): c for n, c in known.items()} | {"gradient_descent": torch.optim.SGD}
    if str(name).lower() not in lowered:
        raise UnknownName("optimizer", name, [*NAMES, "adamw", *known])
    return lowered[str(name).lower()]
