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

import copy
import dataclasses
import random
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import NetworkError, NeuralmineError, UnknownName, UsageError
from .types import Activation, Layer, Network, Trace

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

Edit = Callable[["Tensor"], "Tensor"]

# torch's own families of layers whose output depends on nothing but their input, weights and settings.
_PURE = {
    *("activation", "batchnorm", "channelshuffle", "conv", "distance", "dropout", "flatten", "fold"),
    *("instancenorm", "linear", "normalization", "padding", "pixelshuffle", "pooling", "sparse", "upsampling"),
}
_RANDOM = {"FractionalMaxPool2d", "FractionalMaxPool3d"}
# A layer is kept as it was in a call only if its weights are this many times smaller than what it put out.
_SMALLER = 8
# A copy is kept instead of the tensor, which then dies earlier, and with it what others would be made from: in the
# third run all that was overwritten is copied, and nothing needs to be made again.
_MOST_RUNS = 4
# Calls that need other calls to be made again first, at most this many in a row.
_DEEPEST = 32

# Hooks and flags sit on the module itself, so two traces at a time would disturb each other.
_one_at_a_time = threading.RLock()
# Addresses that earlier traces found must be copied, by module, then by what else matters: grad, and the edits.
_must_copy: weakref.WeakKeyDictionary[Any, dict[tuple[bool, frozenset[str]], set[str]]] = weakref.WeakKeyDictionary()
# Addresses that an earlier whole trace found nobody writes to, by module: the calls that made them need not be kept.
_stays: weakref.WeakKeyDictionary[Any, set[str]] = weakref.WeakKeyDictionary()


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
    with _one_at_a_time:
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

    with _one_at_a_time:
        run = _Run(module, example, note=note)
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


def _layer_of(record: _Record, known: Layer | None, tensor: Tensor) -> Layer:
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
        why = _compiled(parts).get(path)
        if why:
            raise NetworkError(f"Layer {address!r} cannot be traced: {why}.", "Choose another layer.")


# ── Runs ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _settled_run(
    module: Module,
    tensor: Tensor,
    wanted: set[str] | None,
    edits: Mapping[str, Edit],
    grad: bool,
    shape: tuple[int, ...] | None = None,
    output: bool = False,
) -> _Run:
    """Run until every value that was put out can be had: once, or again with copies of those that are lost."""
    remembered = _must_copy.setdefault(module, {})
    plain, edited = remembered.setdefault((grad, frozenset()), set()), frozenset(edits)
    for turn in range(_MOST_RUNS):
        run = _Run(module, tensor, wanted, edits, grad, plain | remembered.get((grad, edited), set()), shape)
        run.to_end = output
        run.go()
        run.check_reached()
        lost, overwritten = run.settle()
        if not lost:
            if wanted is None and not edits:
                _stays.setdefault(module, set()).update(set(run.records) - overwritten)
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


_NO_GRADIENT = "a later operation overwrites it in place, where gradients must pass through it"


class _Stop(BaseException):
    """The last layer asked for has been seen. Not an Exception, so that few modules' except clauses swallow it."""


class _Run:
    """One run of a module with hooks on it, and what they saw."""

    def __init__(
        self,
        module: Module,
        tensor: Tensor,
        wanted: set[str] | None = None,
        edits: Mapping[str, Edit] | None = None,
        grad: bool = False,
        copies: Iterable[str] = (),
        shape: tuple[int, ...] | None = None,
        note: Callable[[str, Module, Tensor], None] | None = None,
    ) -> None:
        self.module, self.tensor, self.shape = module, tensor, shape
        self.wanted, self.edits, self.grad, self.copies, self.note = wanted, edits or {}, grad, frozenset(copies), note
        self.parts = {name: part for name, part in module.named_modules() if name}
        self.compiled = _compiled({"": module, **self.parts})
        self.weights = {id(t): t for part in (module, *self.parts.values()) for t in _states(part)}
        self.records: dict[str, _Record] = {}
        self.output: Any = None
        self.seen: dict[str, int] = {}  # how many tensors each module has put out
        self.silent: dict[str, str] = {}  # modules that put out no tensor, and what they put out
        self.stays = _stays.get(module, frozenset())
        self.pure: set[int] = set()  # modules whose calls can be made again
        self.values: dict[tuple[int, int], _Value] = {}  # by identity of the tensor, and its version
        self.entered: dict[int, list[int]] = {}  # versions of the inputs of layers that work in place
        self.left = None if wanted is None else set(wanted)
        self.failure: NeuralmineError | None = None
        self.stopped = False
        self.to_end = False  # go on to the output, also when all that is wanted has been seen
        self.listening = True
        self.thread = threading.get_ident()

    def go(self) -> None:
        """Hooks on, run, hooks off."""
        import torch

        if any(torch.nn.parameter.is_lazy(t) for t in self.weights.values()):
            raise NetworkError(
                "Some weights of this network do not exist yet: it has lazy modules.", "Run it once, then load it."
            )
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.set_grad_enabled(self.grad))
            stack.enter_context(_left_as_found(self.module))
            stack.enter_context(_uncompiled())
            # A private copy: a network whose first step works in place would write into the caller's tensor.
            fed = self.tensor.clone()
            self._remember(fed)
            self._hook(stack)
            try:
                self.output = self.module(fed)
            except _Stop:
                pass
            except Exception as error:
                # What an edit did wrong comes first; the module may have wrapped it in an error of its own.
                failure = self.failure or self._explain(error)
                if failure is error:
                    raise
                raise failure from (failure.__cause__ or error)
        if self.failure:
            raise self.failure
        if self.stopped:
            self.output = None  # also when the module swallowed the stop and went on

    def _hook(self, stack: ExitStack) -> None:
        needed = None if self.wanted is None else {_path(address) for address in (*self.wanted, *self.edits)}
        for name, part in self.parts.items():
            if name in self.compiled or (needed is not None and name not in needed):
                continue
            if not self.grad and not self.note and _can_be_called_again(part):
                self.pure.add(id(part))
                if getattr(part, "inplace", False):
                    stack.callback(part.register_forward_pre_hook(self._before, with_kwargs=True).remove)
            stack.callback(part.register_forward_hook(partial(self._after, name), with_kwargs=True).remove)

    def _ours(self) -> bool:
        """Not a call from another thread, nor one that an edit makes."""
        return self.listening and threading.get_ident() == self.thread

    def _before(self, part: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._ours():
            self.entered[id(part)] = [_version(t) for t in tensors_of((args, kwargs))]

    def _after(self, name: str, part: Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        if not self._ours():
            return None
        if self.stopped or self.failure:
            raise _Stop  # the module swallowed the first one
        call = _Call(part, args, kwargs, output, self.entered.pop(id(part), None))
        new = _mapped(output, partial(self._put_out, name, call))
        if not call.place:
            self.silent[name] = "None" if output is None else f"a {type(output).__name__}"
        if self.left is not None and not self.left and not self.to_end:
            self.stopped = True
            raise _Stop
        return None if new is output else new

    def _put_out(self, name: str, call: _Call, tensor: Tensor) -> Tensor:
        """One tensor of a module's output: edited if asked, recorded if wanted. Gives what goes on to later layers."""
        k = self.seen.get(name, 0)
        self.seen[name] = k + 1
        address = f"{name}#{k}" if k else name
        if address in self.edits:
            tensor = self._edited(address, tensor)
            call.edited = True
        if self.note:
            self.note(address, call.part, tensor)
        elif self.left is None or address in self.left:
            tensor = self._recorded(address, call, tensor)
            if self.left is not None:
                self.left.discard(address)
        call.place += 1
        return tensor

    def _edited(self, address: str, tensor: Tensor) -> Tensor:
        import torch

        self.listening = False
        try:
            new = self.edits[address](tensor)
        except Exception as error:
            self.failure = UsageError(f"The edit of {address!r} failed: {error}", "Try it on a tensor of that shape.")
            raise self.failure from error
        finally:
            self.listening = True
        if new is tensor:
            return new
        if isinstance(new, torch.Tensor) and _kind(new) == _kind(tensor):
            return new.clone()  # it may be the caller's own, and the network may write into it
        given = _said(new) if isinstance(new, torch.Tensor) else f"a {type(new).__name__}"
        self.failure = UsageError(
            f"The edit of {address!r} gave {given}; {_said(tensor)} is needed.",
            "Return a tensor of the same shape, type and device.",
        )
        raise self.failure

    def _recorded(self, address: str, call: _Call, tensor: Tensor) -> Tensor:
        """Keep one tensor under its address. Gives what goes on to later layers."""
        if tensor.requires_grad and self.grad and call.passes_on(tensor):
            # The gradient at this layer is that of what the layer put out, not of all that its input goes to.
            tensor = tensor.view_as(tensor)
        value = self._known(tensor)
        if value is None:
            keep_call = id(call.part) in self.pure and not call.edited and address not in self.stays
            again = self._again(call, tensor) if keep_call else None
            value = self._remember(tensor)
            value.again = again
        self.records[address] = _Record(address, call.part, tuple(tensor.shape), value)
        if tensor.is_inference() or (not self.grad and self._is_weight(tensor)):
            value.take_copy(tensor)  # it has no counter, or one that the next training step moves on
        elif address in self.copies:
            if not self.grad:
                value.take_copy(tensor)
            elif call.owns(tensor) and not call.passes_on(tensor):
                return tensor.clone()  # the original stays where gradients pass; the copy is what gets overwritten
        return tensor

    def _known(self, tensor: Tensor, version: int | None = None) -> _Value | None:
        """The value that this tensor holds (or held at that version), if it was seen before."""
        value = self.values.get((id(tensor), _version(tensor) if version is None else version))
        return value if value is not None and value.is_of(tensor) and not tensor.is_inference() else None

    def _remember(self, tensor: Tensor) -> _Value:
        value = _Value(tensor)
        self.values[id(tensor), value.version] = value
        return value

    def _is_weight(self, tensor: Tensor) -> bool:
        return id(tensor._base if tensor._is_view() else tensor) in self.weights

    def _again(self, call: _Call, tensor: Tensor) -> _Again | None:
        """The layer as it is in this call, and what it was given; None when that cannot be kept."""
        import torch

        if sum(s.numel() for s in _states(call.part)) * _SMALLER > tensor.numel():
            return None
        if torch.is_autocast_enabled(tensor.device.type):
            return None
        versions = iter(call.versions or [_version(t) for t in tensors_of((call.args, call.kwargs))])
        args = [self._given(entry, versions) for entry in call.args]
        kwargs = {key: self._given(entry, versions) for key, entry in call.kwargs.items()}
        depth = 1 + max((e.again.depth for e in (*args, *kwargs.values()) if _is_made(e)), default=0)
        entries = [*args, *kwargs.values()]
        passed_on = any(isinstance(e, _Value) and e.is_of(tensor) and e.version == _version(tensor) for e in entries)
        if passed_on or depth > _DEEPEST or any(entry is _UNKNOWN for entry in entries):
            return None
        return _Again(_as_it_is(call.part), args, kwargs, call.place, _kind(tensor), depth)

    def _given(self, entry: Any, versions: Iterator[int]) -> Any:
        """One argument of a call, so that it can be given once more: a value, or a constant."""
        import torch

        if not isinstance(entry, torch.Tensor):
            return entry if entry is None or isinstance(entry, (bool, int, float, str)) else _UNKNOWN
        version = next(versions)
        if entry.is_inference() or self._is_weight(entry):
            return _UNKNOWN
        # Whoever asks for few layers keeps few tensors, and can afford to keep their inputs; others only watch them.
        return self._known(entry, version) or _Value(entry, version, keep=self.wanted is not None)

    def _explain(self, error: Exception) -> NeuralmineError:
        """Name the innermost module at work when `error` was raised, found in its traceback."""
        if isinstance(error, NeuralmineError):
            return error
        names = {id(part): name for name, part in self.parts.items()}
        where, shape, step = "", tuple(self.tensor.shape), error.__traceback__
        while step is not None:
            local = step.tb_frame.f_locals
            if id(local.get("self")) in names:
                where = names[id(local["self"])]
                inputs = tensors_of((local.get("args"), local.get("kwargs")))
                shape = tuple(inputs[0].shape) if inputs else shape
            step = step.tb_next
        place = f"in its layer {where!r} ({type(self.parts[where]).__name__})" if where else "in its own forward"
        hint = f"Call {where!r} by hand with an input of that shape." if where else "Call the module by hand."
        if self.shape and tuple(self.tensor.shape[1:]) != tuple(self.shape):
            hint = f"Give a batch of inputs of shape {tuple(self.shape)}."
        elif isinstance(error, MemoryError) or "memory" in str(error).lower():
            hint = "Give a smaller batch, or name the `layers` you need."
        return NetworkError(
            f"The network failed {place} on a tensor of shape {shape}; its own input was {_said(self.tensor)}: {error}",
            hint,
        )

    def check_reached(self) -> None:
        """Raises NetworkError when a layer that was asked for never ran. An edit behind the last of `layers` need not."""
        missing = sorted(self.left or ())
        if not self.stopped:
            missing += [address for address in self.edits if self.seen.get(_path(address), 0) <= _place(address)]
        if not missing:
            return
        path = _path(missing[0])
        count = self.seen.get(path, 0)
        put_out = f"{count} tensor{'s' if count > 1 else ''}" if count else self.silent.get(path, "")
        why = f"{path!r} put out {put_out}" if put_out else f"{path!r} was not called"
        raise NetworkError(
            f"Layer {missing[0]!r} was never reached with this input: {why}.", "Choose another layer or input."
        )

    def settle(self) -> tuple[set[str], set[str]]:
        """Arrange that every value can be had, and let go of the rest.

        Gives the addresses of those that cannot be had, and of all that were overwritten.
        """
        overwritten = {address for address, record in self.records.items() if not record.value.intact()}
        lost = {address for address, record in self.records.items() if not record.value.obtainable()}
        alive = [record.value.tensor for record in self.records.values()]  # until all have taken hold of theirs
        for record in self.records.values():
            record.value.settle()
        alive.clear()
        self.values.clear()
        return lost, overwritten

    def untraced(self) -> dict[str, str]:
        """What was not traced, and why. Empty for a trace limited to some layers."""
        if self.wanted is not None:
            return {}
        names = {id(part): name for name, part in self.parts.items()}
        found = dict(self.compiled)
        for name in self.parts:
            if name in self.silent and name not in self.seen:
                found.setdefault(name, f"it put out no tensor but {self.silent[name]}")
            elif name not in self.seen:
                found.setdefault(name, "it was never called (the module around it may use its weights itself)")
        for name, part in {"": self.module, **self.parts}.items():
            for child, inner in part._modules.items():
                path = f"{name}.{child}" if name else child
                if path not in self.parts and id(inner) in names:
                    found[path] = f"it is the same module as {names[id(inner)]!r}"
        return found


# ── Values ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Value:
    """What one tensor held at one moment: the tensor while nobody writes to it, a copy, or the call that made it."""

    __slots__ = ("_made", "_made_version", "_weak", "again", "copied", "refused", "tensor", "version")

    def __init__(self, tensor: Tensor, version: int | None = None, keep: bool = True) -> None:
        self.version = _version(tensor) if version is None else version
        self.tensor: Tensor | None = tensor if keep else None
        self.again: _Again | None = None
        self.copied, self.refused = False, ""
        self._weak = weakref.ref(tensor)
        # What was made again, for as long as somebody holds it: asking twice gives the same tensor.
        self._made: Callable[[], Tensor | None] = lambda: None
        self._made_version = 0

    def is_of(self, tensor: Tensor) -> bool:
        return self._weak() is tensor

    def take_copy(self, tensor: Tensor) -> None:
        if not self.copied:
            self.tensor, self.again, self.copied = tensor.clone(), None, True
            self.version = _version(self.tensor)

    def intact(self) -> bool:
        tensor = self.tensor if self.tensor is not None else None if self.copied else self._weak()
        return tensor is not None and _version(tensor) == self.version

    def obtainable(self) -> bool:
        return self.intact() or (self.again is not None and all(value.obtainable() for value in self.again.values()))

    def settle(self) -> None:
        """Keep what this value needs, and nothing else."""
        if self.intact():
            self.tensor, self.again = self.tensor if self.tensor is not None else self._weak(), None
        elif self.again is not None:
            self.tensor = None
            for value in self.again.values():
                value.settle()

    def get(self, address: str) -> Tensor:
        if self.refused:
            raise NetworkError(
                f"The value of {address!r} cannot be had with `grad=True`: {self.refused}.",
                "Trace without `grad`, or choose the layer after it.",
            )
        if self.again is not None:
            made = self._made()
            if made is None or _version(made) != self._made_version:
                made = self.again.make(address)
                self._made, self._made_version = weakref.ref(made), _version(made)
            return made
        if self.tensor is None or not self.intact():
            raise NetworkError(
                f"The value of {address!r} was changed in place after the trace was made.",
                "Clone a traced value before changing it.",
            )
        return self.tensor


@dataclass(frozen=True, slots=True, eq=False)
class _Record:
    """What one module put out under one address."""

    address: str
    module: Module
    shape: tuple[int, ...]
    value: _Value


@dataclass(slots=True, eq=False)
class _Call:
    """One call of a module that has just ended, and how many of its tensors were dealt with."""

    part: Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any
    versions: list[int] | None  # of the inputs before the call, where the call may have moved them on
    place: int = 0
    edited: bool = False

    def owns(self, tensor: Tensor) -> bool:
        """Whether no other tensor that went in or came out shares memory with this one."""
        others = [t for t in tensors_of((self.args, self.kwargs, self.output)) if t is not tensor]
        memory = _memory(tensor)
        return memory is not None and all(_memory(t) not in (memory, None) for t in others)

    def passes_on(self, tensor: Tensor) -> bool:
        """Whether this is the very tensor that went in."""
        return any(t is tensor for t in tensors_of((self.args, self.kwargs)))


@dataclass(frozen=True, slots=True, eq=False)
class _Again:
    """A call of one of torch's own layers, kept so that it can be made once more: the layer as it was, and its input."""

    part: Module
    args: list[Any]
    kwargs: dict[str, Any]
    place: int
    kind: tuple[Any, ...]
    depth: int

    def values(self) -> list[_Value]:
        return [entry for entry in (*self.args, *self.kwargs.values()) if isinstance(entry, _Value)]

    def make(self, address: str) -> Tensor:
        import torch

        in_place = bool(getattr(self.part, "inplace", False))

        def given(entry: Any) -> Any:
            if not isinstance(entry, _Value):
                return entry
            tensor = entry.get(address)
            return tensor.clone() if in_place else tensor

        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
            device = self.kind[2].type
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
            args = [given(entry) for entry in self.args]
            kwargs = {key: given(entry) for key, entry in self.kwargs.items()}
            made = tensors_of(self.part.forward(*args, **kwargs))[self.place]
        if _kind(made) != self.kind:
            raise NetworkError(
                f"The value of {address!r} came out as {_said(made)} when it was made again.", "Trace again."
            )
        return made


_UNKNOWN = object()  # an argument that cannot be given once more


def _is_made(entry: Any) -> bool:
    return isinstance(entry, _Value) and entry.again is not None


def _can_be_called_again(part: Module) -> bool:
    """One of torch's own layers without state or chance, as torch wrote it, and with nobody else's hooks."""
    from torch.nn.modules import module as hooks

    kind = type(part)
    strange = (
        part._forward_hooks
        or part._forward_pre_hooks
        or hooks._global_forward_hooks
        or hooks._global_forward_pre_hooks
        or part._modules
        or "forward" in part.__dict__
        or getattr(part, "max_norm", None) is not None
    )
    ours, _, family = kind.__module__.rpartition(".")
    return not strange and ours == "torch.nn.modules" and family in _PURE and kind.__name__ not in _RANDOM


def _as_it_is(part: Module) -> Module:
    """A private twin of a leaf layer with weights of its own, so that training on does not change it."""
    twin = object.__new__(type(part))
    twin.__dict__.update(part.__dict__)
    for kind in ("_parameters", "_buffers"):
        states = part.__dict__[kind].items()
        twin.__dict__[kind] = {name: None if t is None else t.detach().clone() for name, t in states}
    return twin


def _states(part: Module) -> list[Tensor]:
    return [t for t in (*part._parameters.values(), *part._buffers.values()) if t is not None]


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


def _kind(tensor: Tensor) -> tuple[Any, ...]:
    return tuple(tensor.shape), tensor.dtype, tensor.device


def _said(tensor: Tensor) -> str:
    device = "" if tensor.device.type == "cpu" else f" on {tensor.device}"
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}{device}"


def _memory(tensor: Tensor) -> int | None:
    try:
        return tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):  # sparse tensors and others without one storage
        return None


def _path(address: str) -> str:
    return address.partition("#")[0]


def _place(address: str) -> int:
    return int(address.partition("#")[2] or 0)


# ── The module around the run ─────────────────────────────────────────────────────────────────────────────────────────


def _compiled(parts: Mapping[str, Module]) -> dict[str, str]:
    """The modules that run no hooks, with why. The root's own name is left out."""
    import torch

    scripts = [name for name, part in parts.items() if isinstance(part, torch.jit.ScriptModule)]
    if not scripts:
        return {}
    return {
        name: "it is compiled by TorchScript, which runs no hooks"
        for name in parts
        if name and any(name == script or not script or name.startswith(f"{script}.") for script in scripts)
    }


@contextmanager
def _uncompiled() -> Iterator[None]:
    """What torch.compile made runs no hooks inside, so for this run the Python code is run."""
    if "torch._dynamo" not in sys.modules:
        yield
        return
    import torch

    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def _left_as_found(module: Module) -> Iterator[None]:
    """Eval mode inside; after it the flags, buffers and random generators are as they were.

    Flags are set one by one, since a module's own `train()` may do more than set them. Raises NetworkError when the
    module wrote to its own weights.
    """
    import torch

    parts = list(module.modules())
    training = [part for part in parts if part.training]
    # Small, and some modules count or cache in them; so do embeddings with a maximum norm in their weights.
    kept: list[tuple[Module, Any, dict[str, Any]]]
    kept = [(part, part._buffers, dict(part._buffers)) for part in parts if part._buffers]
    kept += [(p, p._parameters, dict(p._parameters)) for p in parts if getattr(p, "max_norm", None) is not None]
    copies = {id(t): (t, t.clone(), _version(t)) for *_, states in kept for t in states.values() if t is not None}
    versions = [
        (part, name, p, _version(p))
        for part in parts
        for name, p in part._parameters.items()
        if p is not None and id(p) not in copies
    ]
    restore_randomness = _random_states()
    try:
        for part in training:
            part.training = False
        yield
        for part, name, parameter, version in versions:
            if _version(parameter) != version or dict(part._parameters).get(name) is not parameter:
                raise NetworkError(
                    f"The network changed its own weights ({name!r} of a {type(part).__name__}) while it ran.",
                    "Make its forward leave the weights alone in eval mode.",
                )
    finally:
        for part in training:
            part.training = True
        for part, states, before in kept:
            for name, tensor in before.items():
                if not isinstance(part, torch.jit.ScriptModule) and states.get(name) is not tensor:
                    states[name] = tensor
        with torch.no_grad():
            for tensor, was, version in copies.values():
                if _version(tensor) != version:
                    tensor.copy_(was)
        restore_randomness()


def _random_states() -> Callable[[], None]:
    """A function that sets every random generator back to where it stands now."""
    import torch

    cpu, numpy, python = torch.get_rng_state(), np.random.get_state(), random.getstate()
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None

    def restore() -> None:
        torch.set_rng_state(cpu)
        np.random.set_state(numpy)
        random.setstate(python)
        if gpus is not None:
            torch.cuda.set_rng_state_all(gpus)

    return restore


# ── Structures of tensors ─────────────────────────────────────────────────────────────────────────────────────────────


def tensors_of(value: Any) -> list[Tensor]:
    """The tensors in nested tuples, lists, dicts and dataclasses, in order.

    >>> import torch
    >>> [tuple(t.shape) for t in tensors_of((torch.zeros(2), {"a": [torch.zeros(3), None]}, "text"))]
    [(2,), (3,)]
    """
    found: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    _mapped(value, keep)
    return found


def _mapped(value: Any, change: Callable[[Tensor], Tensor], inside: tuple[int, ...] = ()) -> Any:
    """`value` with `change` done to each of its tensors, in order; `value` itself when none of them changed."""
    import torch

    if isinstance(value, torch.Tensor):
        return change(value)
    entries = _entries(value)
    if not entries or id(value) in inside:
        return value
    new = [(key, _mapped(entry, change, (*inside, id(value)))) for key, entry in entries]
    same = all(a is b for (_, a), (_, b) in zip(entries, new, strict=True))
    return value if same else _with_entries(value, new)


def _entries(value: Any) -> list[tuple[Any, Any]]:
    # Most things are one of the first, and asking a Mapping what it is takes long.
    if value is None or isinstance(value, (bool, int, float, str)):
        return []
    if isinstance(value, (list, tuple)):
        return list(enumerate(value))
    if isinstance(value, (dict, Mapping)):
        return list(value.items())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value) if hasattr(value, f.name)]
    return []


def _with_entries(value: Any, entries: list[tuple[Any, Any]]) -> Any:
    """A copy of `value`, of the same type, with these entries."""
    if isinstance(value, tuple):
        items = [entry for _, entry in entries]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    try:
        new = copy.copy(value)
        for key, entry in entries:
            if isinstance(value, (Mapping, list)):
                new[key] = entry  # type: ignore[index]
            else:
                object.__setattr__(new, key, entry)  # frozen ones too
    except (TypeError, AttributeError) as error:
        raise UsageError(
            f"A tensor inside a {type(value).__name__} cannot be replaced: {error}.", "Edit another layer."
        ) from error
    return new
