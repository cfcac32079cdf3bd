"""Climbing: what moves a layer of a network, and in which direction the picture must change to move it more.

An objective is a plain function from what the layer put out (b × …) to b numbers, one for each picture of the batch.
The functions here make the usual ones; tokens of a vision transformer count as maps, single numbers as maps of 1 × 1.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from .attribution import as_maps, scores_of
from .errors import NetworkError, UsageError
from .tracing import tensors_of, trace
from .tracing.run import one_at_a_time
from .tracing.surroundings import uncompiled
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


def reach(network: Network, *layers: str) -> Reach:
    """A function from an encoded batch to what the layers put out, with the graph that leads there from the batch.

    Made once, called for every step: it costs far less than a trace. The network stops after the last of the layers;
    "" is its output. In each call it is in eval mode and its weights get no gradients; afterwards all is as it was.

    >>> import torch, neuralmine as nm
    >>> net = nm.load("digits")
    >>> [tuple(values.shape) for values in reach(net, "hidden1", "")(torch.zeros(3, 8, 8, dtype=torch.float64))]
    [(3, 16), (3, 10)]
    """
    return Reach(network, layers)


class Reach:
    """What `reach` makes. Inside its `open()` several threads may call it at the same time."""

    def __init__(self, network: Network, layers: tuple[str, ...]) -> None:
        import torch

        self.network, self.layers = network, layers
        self.wanted = {network.layer(layer).name for layer in layers if layer}
        self._parts, self._weights = list(network.module.modules()), list(network.module.parameters())
        self._counters = [part for part in self._parts if part._buffers]
        # Convolutions are up to a third faster with the colours of a pixel side by side; not every network can take it.
        self._orders = [torch.channels_last, torch.contiguous_format]
        self._call = threading.local()  # what the call in this thread has caught, and how many tensors it has seen
        self._opened = False

    @contextmanager
    def open(self) -> Iterator[None]:
        """The network made ready once for several calls: nobody else may look at it meanwhile."""
        paths = {address.partition("#")[0] for address in self.wanted}
        with one_at_a_time, _quiet(self._parts, self._weights, self._counters):
            handles = []
            try:
                for path in paths:
                    part = self.network.module.get_submodule(path)
                    handles.append(part.register_forward_hook(partial(self._after, path)))
                self._opened = True
                yield
            finally:
                self._opened = False
                for handle in handles:
                    handle.remove()

    def __call__(self, encoded: Tensor) -> list[Tensor]:
        """What each of the layers put out. Raises NetworkError when the network fails, UsageError without a gradient."""
        if self._opened:
            found = self._look(encoded)
            if found is None:
                raise NetworkError("The network failed, or did not get to the layer.", "Trace it to see where.")
        else:
            with self.open():
                found = self._look(encoded)
        if found is None:
            # What went wrong, and where, a trace says; and should it get there all the same, its values are right.
            traced = trace(self.network, encoded, layers=self.wanted, output="" in self.layers, grad=True)
            found = {name: traced[name].value for name in self.wanted} | {"": traced.output}
        if "" in self.layers:
            found[""] = scores_of(found[""])
        for layer in self.layers:
            if encoded.requires_grad and not found[layer].requires_grad:
                raise UsageError(
                    f"No gradient leads from {layer or 'the output'!r} back to the picture: {_why(found[layer])}.",
                    "Choose a layer before it.",
                )
        return [found[layer] for layer in self.layers]

    def _look(self, encoded: Tensor) -> dict[str, Any] | None:
        """What the layers put out by address, and the output by ""; None when the network did not get there."""
        import torch

        for order in tuple(self._orders) if encoded.ndim == 4 else (torch.contiguous_format,):
            found: dict[str, Any] = {}
            self._call.found, self._call.counts = found, {}
            try:
                with torch.inference_mode(False), torch.enable_grad():
                    # A copy: a network whose first step works in place must not write into the caller's picture.
                    found[""] = self.network.module(encoded.clone(memory_format=order))
            except _Stop:
                pass
            except Exception:
                continue
            finally:
                self._call.found = None
            if self.wanted <= found.keys():
                if encoded.ndim == 4:
                    self._orders = [order]
                return found
        return None

    def _after(self, path: str, part: Any, args: Any, output: Any) -> Any:
        found = getattr(self._call, "found", None)
        if found is None:
            return None  # somebody else's call
        for tensor in tensors_of(output):
            k = self._call.counts[path] = self._call.counts.get(path, -1) + 1
            address = f"{path}#{k}" if k else path
            if address in self.wanted:
                found[address] = tensor
        if "" not in self.layers and len(found) == len(self.wanted):
            raise _Stop
        # What is caught must survive a later layer that works in place: that one gets a tensor of its own.
        return output.clone() if any(output is caught for caught in found.values()) else None


class _Stop(BaseException):
    """All that is wanted has been seen."""


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
        with uncompiled():
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
