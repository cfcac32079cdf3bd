"""Hooks on, run, hooks off. Values are what each layer put out, also when a later operation overwrote them in place.

Nothing is copied beforehand. A traced tensor is kept by reference, with its version counter, which every in-place
operation moves on. After the run, a value whose tensor has moved on was overwritten; then

    made again   when one of torch's own layers put it out, and that layer's input is intact or can be made again:
                 the layer, as it was in that call, is called once more when somebody asks for the value;
    copied       otherwise: the network is run a second time with copies of just those values, and their addresses
                 are remembered, so that later traces of the same module need one run.

A value that is neither is an error. What torch's counters cannot see, this cannot see either: a forward that writes
through `.data`, through numpy, or in C++ code that hides it.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import NetworkError, UnknownName, UsageError
from ..types import Activation, Layer, Network, Trace
from .run import Edit, Run, note_stays, one_at_a_time
from .structures import tensors_of
from .surroundings import compiled
from .values import Record

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

__all__ = ["Edit", "describe", "dims_of", "tensors_of", "trace"]

# A copy is kept instead of the tensor, which then dies earlier, and with it what others would be made from: in the
# third run all that was overwritten is copied, and nothing needs to be made again.
_MOST_RUNS = 4
_NO_GRADIENT = "a later operation overwrites it in place, where gradients must pass through it"

# Addresses that earlier traces found must be copied, by module, then by what else matters: grad, and the edits.
_must_copy: weakref.WeakKeyDictionary[Any, dict[tuple[bool, frozenset[str]], set[str]]] = weakref.WeakKeyDictionary()


def trace(
    network: Network,
    raw: Any,
    *,
    layers: Iterable[str] | None = None,
    edits: Mapping[str, Edit] | None = None,
    grad: bool = False,
    output: bool = False,
) -> Trace:
    """Run one input (or batch) and keep what every layer put out.

    `raw` is encoded by the network; a tensor is taken as an encoded batch. `layers` limits the trace and stops the
    run after the last of them; there is then no output, unless `output` asks for it. `edits` maps a layer to a function of its tensor whose
    result, of the same shape and type, replaces it for all that follows; it may be called more than once. `grad=True`
    keeps the graph for backward passes, to the layers and to the tensor given. The network runs in eval mode, and
    its flags, buffers, hooks and all random generators are left as they were.

    Raises UnknownName for a layer that does not exist, UsageError for an edit that does not fit, NetworkError when
    the network fails, naming the layer, or never reaches a layer that was asked for.

    >>> import neuralmine as nm
    >>> net, image = nm.load("digits"), nm.datasets.load("digits").images[201]
    >>> trace(net, image)["hidden1"].value.shape
    torch.Size([1, 16])
    >>> off = trace(net, image, edits={"hidden1": lambda h: h * 0})
    >>> float(off["hidden1"].value.sum())
    0.0
    """
    import torch

    tensor = raw if isinstance(raw, torch.Tensor) else network.encode(raw)
    edits = dict(edits or {})
    wanted = None if layers is None else {layers} if isinstance(layers, str) else set(layers)
    if wanted is not None and not wanted and not output:
        raise UsageError("No layer was asked for: `layers` is empty.", "Name at least one, or leave `layers` out.")
    _check_addresses(network, [*(wanted or ()), *edits])
    with one_at_a_time:
        run = _settled_run(network.module, tensor, wanted, edits, grad, network.shape, output)
    known = {layer.name: layer for layer in network.layers}
    activations = {
        address: Activation(_layer_of(record, known.get(address), tensor), partial(record.value.get, address))
        for address, record in run.records.items()
    }
    return Trace(network, tensor, run.output, activations, run.untraced())


def describe(
    module: Module, example: Tensor, dims_hint: Mapping[str, str] | None = None
) -> tuple[tuple[Layer, ...], dict[str, str]]:
    """The layers of a module in execution order, found by running `example`, and what cannot be traced, with why.

    `dims_hint` gives the dims of layers where the rule of `dims_of` is wrong, by address.

    Raises NetworkError when the module fails, naming the layer in which it broke.

    >>> import torch
    >>> layers, untraced = describe(torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()), torch.zeros(1, 4))
    >>> [(layer.name, layer.kind, layer.dims, layer.shape, layer.parameters) for layer in layers]
    [('0', 'Linear', 'b d', (1, 3), 15), ('1', 'ReLU', 'b d', (1, 3), 0)]
    """
    found: list[Layer] = []

    def note(address: str, part: Module, value: Tensor) -> None:
        dims = (dims_hint or {}).get(address) or _dims_in(address, part, value, len(example))
        own = sum(p.numel() for p in part.parameters(recurse=False))
        found.append(Layer(address, type(part).__name__, dims, tuple(value.shape), own))

    with one_at_a_time:
        run = Run(module, example, note=note)
        run.go()
    return tuple(found), run.untraced()


def dims_of(shape: Sequence[int], batch: int | None = None, attention: bool = False) -> str:
    """Dims in einops style, read off the rank: batch and units, tokens, maps; more are numbered.

    A first axis that is not as long as the batch is `n`, for it counts something else. `attention` says that the
    values are attention weights: heads (when there is an axis for them), queries, keys.

    >>> dims_of((1, 64, 55, 55))
    'b c h w'
    >>> dims_of((1, 12, 9, 9), attention=True), dims_of((9, 768), batch=1)
    ('b h q k', 'n d')
    """
    if attention and len(shape) in (3, 4):
        return "b q k" if len(shape) == 3 else "b h q k"
    known = ("", "b", "b d", "b t d", "b c h w", "b c t h w")
    rank = len(shape)
    dims = known[rank] if rank < len(known) else "b " + " ".join(f"d{i}" for i in range(1, rank))
    return dims if batch is None or not rank or shape[0] == batch else "n" + dims[1:]


def _dims_in(address: str, part: Module, value: Tensor, batch: int) -> str:
    """Attention weights are known by measuring: they come from an attention module, and each row sums to one."""
    where = f"{address} {type(part).__name__}".lower()
    attention = (
        ("attn" in where or "attention" in where)
        and value.ndim in (3, 4)
        and value.is_floating_point()
        and bool((value >= 0).all() and ((value.float().sum(-1) - 1).abs() < 1e-2).all())
    )
    return dims_of(tuple(value.shape), batch, attention)


def _layer_of(record: Record, known: Layer | None, tensor: Tensor) -> Layer:
    if known is not None and len(known.shape) == len(record.shape):
        return known if known.shape == record.shape else dataclasses.replace(known, shape=record.shape)
    own = sum(p.numel() for p in record.module.parameters(recurse=False))
    dims = dims_of(record.shape, len(tensor) if tensor.ndim else None)
    return Layer(record.address, type(record.module).__name__, dims, record.shape, own)


def _check_addresses(network: Network, addresses: Iterable[str]) -> None:
    """What is neither a known layer nor a (further) call of a module is unknown; whether it is reached, the run tells."""
    known = {layer.name for layer in network.layers}
    for address in addresses:
        if address in known:
            continue
        path, mark, k = address.partition("#")
        parts = dict(network.module.named_modules())
        if not path or path not in parts or (mark and not k.isdigit()):
            raise UnknownName("layer", address, [layer.name for layer in network.layers])
        why = compiled(parts).get(path)
        if why:
            raise NetworkError(f"Layer {address!r} cannot be traced: {why}.", "Choose another layer.")


def _settled_run(
    module: Module,
    tensor: Tensor,
    wanted: set[str] | None,
    edits: Mapping[str, Edit],
    grad: bool,
    shape: tuple[int, ...] | None = None,
    output: bool = False,
) -> Run:
    """Run until every value that was put out can be had: once, or again with copies of those that are lost."""
    remembered = _must_copy.setdefault(module, {})
    plain, edited = remembered.setdefault((grad, frozenset()), set()), frozenset(edits)
    for turn in range(_MOST_RUNS):
        run = Run(module, tensor, wanted, edits, grad, plain | remembered.get((grad, edited), set()), shape)
        run.to_end = output
        run.go()
        run.check_reached()
        lost, overwritten = run.settle()
        if not lost:
            if wanted is None and not edits:
                note_stays(module, set(run.records) - overwritten)
            return run
        new = (overwritten if turn else lost) - run.copies
        if not new:
            # Copied and lost all the same happens with `grad`: the copy went on, and the original was written to.
            for address in lost:
                run.records[address].value.refused = _NO_GRADIENT
            return run
        remembered.setdefault((grad, edited), set()).update(new)
        del run
    raise NetworkError(
        f"This network does not put out the same layers twice: {', '.join(sorted(lost)[:5])} could not be caught.",
        "Make its forward deterministic, or ask for other layers with `layers=`.",
    )
