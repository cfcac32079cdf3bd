"""Climbing: what moves a layer of a network, and in which direction the picture must change to move it more.

An objective is a plain function from what the layer put out (b × …) to b numbers, one for each picture of the batch.
The functions here make the usual ones; tokens of a vision transformer count as maps, single numbers as maps of 1 × 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .attribution import as_maps, scores_of
from .errors import UsageError
from .tracing import _one_at_a_time, _uncompiled, tensors_of, trace
from .types import Network

if TYPE_CHECKING:
    from torch import Tensor

Objective = Callable[["Tensor"], "Tensor"]


def objective_gradient(network: Network, layer: str, encoded: Tensor, objective: Objective) -> tuple[Tensor, Tensor]:
    """The objective of each picture (b numbers), and its gradient (the shape of `encoded`, an encoded batch).

    The forward pass stops at the layer ("" is the network's own output); weights get no gradients, and everything is
    left as it was. Raises UnknownName for a layer that does not exist, NetworkError when the network fails before it,
    UsageError for a layer that no change of the picture can move.

    >>> import neuralmine as nm
    >>> net, images = nm.load("digits"), nm.datasets.load("digits").images[:2]
    >>> value, gradient = objective_gradient(net, "hidden1", net.encode(images), mean_square)
    >>> value.shape, gradient.shape
    (torch.Size([2]), torch.Size([2, 8, 8]))
    """
    import torch

    with torch.inference_mode(False), torch.enable_grad():
        inputs = encoded.detach().clone().requires_grad_()
        (values,) = reach(network, layer)(inputs)
        found = objective(values)
        (gradient,) = torch.autograd.grad(found.sum(), inputs)
    return found.detach(), gradient


def reach(network: Network, *layers: str) -> Callable[[Tensor], list[Tensor]]:
    """A function from an encoded batch to what the layers put out, with the graph that leads there from the batch.

    Made once, called for every step: it costs far less than a trace. The network stops after the last of the layers;
    "" is its output. In each call it is in eval mode and its weights get no gradients; afterwards all is as it was.

    >>> import torch, neuralmine as nm
    >>> net = nm.load("digits")
    >>> [tuple(values.shape) for values in reach(net, "hidden1", "")(torch.zeros(3, 8, 8, dtype=torch.float64))]
    [(3, 16), (3, 10)]
    """
    import torch

    for layer in layers:
        if layer:
            network.layer(layer)
    module = network.module
    parts, weights = list(module.modules()), list(module.parameters())
    counters = [part for part in parts if part._buffers]
    wanted = {layer for layer in layers if layer}
    # Convolutions are up to a third faster with the colours of a pixel side by side; not every network can take that.
    orders = [torch.channels_last, torch.contiguous_format]

    def run(encoded: Tensor) -> list[Tensor]:
        with _one_at_a_time, torch.inference_mode(False), torch.enable_grad(), _quiet(parts, weights, counters):
            for order in tuple(orders) if encoded.ndim == 4 else (torch.contiguous_format,):
                # A copy: a network whose first step works in place must not write into the caller's picture.
                found = _caught(module, encoded.clone(memory_format=order), wanted, stop="" not in layers)
                if found is not None and encoded.ndim == 4:
                    orders[:] = [order]
                if found is not None:
                    break
        if found is None:
            # What went wrong, and where, a trace says; and should it get there all the same, its values are right.
            traced = trace(network, encoded, layers=wanted, output="" in layers, grad=True)
            found = {name: traced[name].value for name in wanted} | {"": traced.output}
        if "" in layers:
            found[""] = scores_of(found[""])
        for layer in layers:
            if encoded.requires_grad and not found[layer].requires_grad:
                raise UsageError(
                    f"No gradient leads from {layer or 'the output'!r} back to the picture: {_why(found[layer])}.",
                    "Choose a layer before it.",
                )
        return [found[layer] for layer in layers]

    return run


class _Stop(BaseException):
    """All that is wanted has been seen."""


def _caught(module: Any, fed: Tensor, wanted: set[str], stop: bool) -> dict[str, Any] | None:
    """What the layers put out by address, and the output by ""; None when the network failed or did not get there."""
    found: dict[str, Any] = {}
    counts: dict[str, int] = {}
    paths = {address.partition("#")[0] for address in wanted}
    handles = []

    def catcher(path: str) -> Callable[..., Any]:
        def after(part: Any, args: Any, output: Any) -> Any:
            for tensor in tensors_of(output):
                k = counts[path] = counts.get(path, -1) + 1
                address = f"{path}#{k}" if k else path
                if address in wanted:
                    found[address] = tensor
            if stop and len(found) == len(wanted):
                raise _Stop
            # What is caught must survive a later layer that works in place: that one gets a tensor of its own.
            return output.clone() if any(output is caught for caught in found.values()) else None

        return after

    try:
        for path in paths:
            handles.append(module.get_submodule(path).register_forward_hook(catcher(path)))
        found[""] = module(fed)
    except _Stop:
        pass
    except Exception:
        return None
    finally:
        for handle in handles:
            handle.remove()
    return found if wanted <= found.keys() else None


@contextmanager
def _quiet(parts: Sequence[Any], weights: Sequence[Any], counters: Sequence[Any]) -> Iterator[None]:
    """Eval mode and frozen weights inside; after it flags and buffers are as they were."""
    import torch

    training = [part for part in parts if part.training]
    learning = [weight for weight in weights if weight.requires_grad]
    buffers = [(part._buffers, dict(part._buffers)) for part in counters]
    # Whole numbers are counters, which a network may move on even in eval mode.
    copies = [(t, t.clone()) for _, kept in buffers for t in kept.values() if t is not None and not t.is_floating_point()]  # fmt: skip
    try:
        for part in training:
            part.training = False
        for weight in learning:
            weight.requires_grad_(False)
        with _uncompiled():
            yield
    finally:
        for part in training:
            part.training = True
        for weight in learning:
            weight.requires_grad_(True)
        for states, kept in buffers:
            states.update(kept)
        with torch.no_grad():
            for tensor, was in copies:
                tensor.copy_(was)


def _why(values: Tensor) -> str:
    return "it holds whole numbers" if not values.is_floating_point() else "something on the way cuts the graph"


# ── Objectives ────────────────────────────────────────────────────────────────────────────────────────────────────────


def mean_square(values: Tensor) -> Tensor:
    """The mean of the squares of all the layer put out: what DeepDream climbs.

    >>> import torch
    >>> mean_square(torch.tensor([[1.0, 3.0]]))
    tensor([5.])
    """
    return values.square().flatten(1).mean(1)


def channel(units: Sequence[int]) -> Objective:
    """The mean of one channel over all places; `units` has one number for each picture, or one for all.

    >>> import torch
    >>> channel([1])(torch.arange(8.0).reshape(1, 2, 2, 2))
    tensor([5.5000])
    """
    return lambda values: _chosen(values, units).flatten(1).mean(1)


def neuron(units: Sequence[int]) -> Objective:
    """One channel at its centre place, (rows // 2, columns // 2).

    >>> import torch
    >>> neuron([1])(torch.arange(8.0).reshape(1, 2, 2, 2))
    tensor([7.])
    """

    def centre(values: Tensor) -> Tensor:
        maps = _chosen(values, units)
        return maps[:, maps.shape[1] // 2, maps.shape[2] // 2]

    return centre


def direction(vectors: Any) -> Objective:
    """The dot product with a vector of channels (n × channels, one for each picture or one for all), mean over places.

    >>> import torch
    >>> direction([[1.0, -1.0]])(torch.arange(8.0).reshape(1, 2, 2, 2))
    tensor([-4.])
    """
    import torch

    def along(values: Tensor) -> Tensor:
        maps = maps_of(values)
        return (maps.mean((2, 3)) * torch.as_tensor(vectors, dtype=maps.dtype, device=maps.device)).sum(1)

    return along


def logit(classes: Sequence[int]) -> Objective:
    """The network's own output for a class; climb it at layer "".

    >>> import torch
    >>> logit([2])(torch.tensor([[0.0, 1.0, 5.0]]))
    tensor([5.])
    """
    return channel(classes)


def like(guide: Tensor) -> Objective:
    """How well each place of the layer fits the place of a guide's features (1 × channels × …) that fits it best.

    The largest dot product over the guide's places, mean over the layer's: DeepDream "guided by an image".

    >>> import torch
    >>> like(torch.tensor([[[[1.0, 0.0]], [[0.0, 2.0]]]]))(torch.tensor([[[[3.0]], [[1.0]]]]))
    tensor([3.])
    """
    wanted = maps_of(guide.detach())[0].flatten(1)

    def fit(values: Tensor) -> Tensor:
        found = maps_of(values).flatten(2).transpose(1, 2)
        return (found @ wanted).amax(2).mean(1)

    return fit


def maps_of(values: Tensor) -> Tensor:
    """What a layer put out as b × channels × rows × columns. Raises UsageError for what has no channels.

    >>> import torch
    >>> maps_of(torch.zeros(2, 10)).shape
    torch.Size([2, 10, 1, 1])
    """
    if values.ndim == 2:
        return values[:, :, None, None]
    return as_maps(values)


def _chosen(values: Tensor, units: Sequence[int]) -> Tensor:
    maps = maps_of(values)
    if len(units) == 1:
        return maps[:, units[0]]
    return maps[range(len(maps)), list(units)]
