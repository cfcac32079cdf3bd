"""A network with some weights changed by hand or some neurons switched off; the original stays as it is."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..errors import UnknownName, UsageError
from ..types import Network


def edited(
    network: Network,
    *,
    weights: Mapping[str, Iterable[tuple[Iterable[int], float]]] | None = None,
    off: Mapping[str, Iterable[int]] | None = None,
) -> Network:
    """A copy of `network` with single weights set, and units whose output is held at 0.

    `weights` maps a parameter's name to (index, value) pairs; `off` maps a layer (dims "b d") to unit numbers.
    Raises UnknownName for a parameter, layer or unit that does not exist, UsageError for a value that is no number.

    >>> import neuralmine as nm
    >>> net = nm.load("digits")
    >>> off = edited(net, off={"hidden1": [3]})
    >>> float(nm.trace(off, nm.datasets.load("digits").images[0])["hidden1"].value[0, 3])
    0.0
    """
    import math

    import torch

    module = copy.deepcopy(network.module)
    parameters = dict(module.named_parameters())
    with torch.no_grad():
        for name, changes in (weights or {}).items():
            if name not in parameters:
                raise UnknownName("parameter", name, parameters)
            for index, value in changes:
                where = tuple(int(i) for i in index)
                shape = tuple(parameters[name].shape)
                if len(where) != len(shape) or not all(0 <= i < n for i, n in zip(where, shape, strict=True)):
                    raise UsageError(f"{name} has shape {shape}; there is no weight at {where}.", "Choose one inside.")
                if not math.isfinite(value):
                    raise UsageError(f"{name}{list(where)} cannot be {value}.", "Give a finite number.")
                parameters[name][where] = value
    for name, units in (off or {}).items():
        layer = network.layer(name)
        if layer.dims != "b d" or "#" in name:
            raise UsageError(
                f"Units of {name!r} cannot be switched off: its dims are {layer.dims!r}.", "Use a dense layer."
            )
        chosen = sorted({int(unit) for unit in units})
        if chosen and not 0 <= chosen[0] <= chosen[-1] < layer.shape[1]:
            raise UsageError(f"{name} has units 0 to {layer.shape[1] - 1}, not {chosen}.", "Choose units inside.")
        module.get_submodule(name).register_forward_hook(_silence(chosen))
    return replace(network, module=module)


def _silence(units: list[int]) -> Any:
    def hook(module: Any, given: Any, output: Any) -> Any:
        output = output.clone()
        output[:, units] = 0
        return output

    return hook
