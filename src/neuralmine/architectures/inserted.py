"""Dropout and batch normalisation put into a network that was built without."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

from torch import nn

from ..errors import UsageError
from .mlp import Dropout

ACTIVATIONS = (nn.Sigmoid, nn.Tanh, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU)
NORMS = {nn.Linear: nn.BatchNorm1d, nn.Conv2d: nn.BatchNorm2d}


def with_dropout(module: nn.Module, p: float) -> nn.Module:
    """A copy of the module with dropout after every activation before its last layer of weights.

    Raises UsageError for a module without a hidden activation, or with dropout already.

    >>> from neuralmine.architectures.mlp import mlp
    >>> [type(part).__name__ for part in with_dropout(mlp([4, 3, 2]), 0.5).hidden1.activation]
    ['Sigmoid', 'Dropout']
    """
    _check_absent(module, "Dropout")
    weighted = _weighted(module)
    order = [name for name, _ in module.named_modules()]
    before = order[: order.index(weighted[-1])] if weighted else []
    names = [name for name in before if isinstance(module.get_submodule(name), ACTIVATIONS)]

    def dropout(part: nn.Module) -> nn.Module:
        return Dropout(p)

    return _with(module, names, dropout, "activation")


def with_batch_norm(module: nn.Module) -> nn.Module:
    """A copy of the module with batch normalisation after every Linear or Conv2d but the last.

    Raises UsageError for a module without a hidden layer, or with batch normalisation already.
    """
    _check_absent(module, "BatchNorm")

    def norm(part: nn.Module) -> nn.Module:
        assert isinstance(part, (nn.Linear, nn.Conv2d))
        return NORMS[type(part)](part.weight.shape[0], dtype=part.weight.dtype)

    return _with(module, _weighted(module)[:-1], norm, "layer")


def _weighted(module: nn.Module) -> list[str]:
    return [name for name, part in module.named_modules() if type(part) in NORMS]


def _check_absent(module: nn.Module, kind: str) -> None:
    for name, part in module.named_modules():
        if kind in type(part).__name__:
            raise UsageError(f"The network has it already: {name} ({type(part).__name__}).", "Leave it as it is.")


def _with(module: nn.Module, names: Sequence[str], make: Callable[[nn.Module], nn.Module], what: str) -> nn.Module:
    if not names:
        raise UsageError(f"The network has no hidden {what} to put it after.", "Give it a hidden layer.")
    changed = copy.deepcopy(module)
    for name in names:
        parent, _, child = name.rpartition(".")
        part = changed.get_submodule(name)
        setattr(changed.get_submodule(parent), child, nn.Sequential(part, make(part)))
    return changed
