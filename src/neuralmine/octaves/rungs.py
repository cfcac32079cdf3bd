"""Which layers to dream, in depth order, and what each costs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..errors import UsageError
from ..types import Layer, Network

RUNGS = 16  # layers at most in a ladder nobody chose
# Layers that only pass on, squash or rescale what the layer before them found: no rungs of their own.
_PASSING = (
    *("ReLU", "Sigmoid", "Tanh", "GELU", "SiLU", "Hardswish", "ELU", "Mish", "Softmax", "Softplus", "Activation"),
    *("Norm", "Dropout", "DropPath", "Pad", "Identity", "Flatten"),
)


def is_maps(layer: Layer) -> bool:
    """Whether the layer has maps with more than one place."""
    return layer.dims == "b c h w" and layer.shape[2] * layer.shape[3] > 1


def ladder(network: Network, layers: str | Sequence[str] = "all") -> list[Layer]:
    """The layers of a series in depth order: those named, or one for each stage of the network.

    A stage is a module as deep in the tree of names as gives at least six of them; layers that only squash, rescale or
    pass on are none, nor are the maps of the classes. At most sixteen, evenly chosen.
    Raises UnknownName for a layer that does not exist, UsageError when none is named.

    >>> import neuralmine as nm
    >>> [layer.name for layer in ladder(nm.load("digits"))]
    ['hidden1', 'output']
    """
    names = [n.strip() for n in layers.split(",")] if isinstance(layers, str) else list(layers)
    names = [name for name in names if name]
    if not names:
        raise UsageError("No layer is named.", 'Give names with commas between them, or "all".')
    if names != ["all"]:
        chosen = {network.layer(name).name for name in names}
        return [layer for layer in network.layers if layer.name in chosen]
    for fits in (is_maps, lambda layer: layer.dims == "b t d", lambda layer: layer.dims == "b d"):
        found = _stages(network, [layer for layer in network.layers if fits(layer) and "#" not in layer.name])
        if found:
            break
    else:
        found = list(network.layers)
    if len(found) > RUNGS:
        found = [found[round(i)] for i in np.linspace(0, len(found) - 1, RUNGS)]
    return found


def _stages(network: Network, layers: Sequence[Layer]) -> list[Layer]:
    best: list[Layer] = []
    for depth in range(1, 2 + max((layer.name.count(".") for layer in layers), default=0)):
        parents = {".".join(layer.name.split(".")[:k]) for layer in network.layers for k in range(1, depth)}
        level = [layer for layer in layers if layer.name.count(".") < depth and layer.name not in parents]
        level = [x for x in level if not any(word in x.kind for word in _PASSING) and not _of_classes(network, x)]
        if len(level) > len(best):
            best = level
        if len(best) >= 6:
            break
    return best


def _of_classes(network: Network, layer: Layer) -> bool:
    return layer.dims == "b c h w" and layer.shape[1] == len(network.labels)


def cost(network: Network, layer: str) -> float:
    """Multiplications of a pass as far as the layer, roughly: for saying how long it will take."""
    total = 0.0
    for one in network.layers:
        places = one.shape[2] * one.shape[3] if one.dims == "b c h w" else 1
        total += one.parameters * places + math.prod(one.shape)
        if one.name == layer:
            break
    return total
