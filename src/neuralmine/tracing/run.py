"""One run of a module with hooks on it, and what they saw."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import NetworkError, NeuralmineError, UsageError
from .structures import mapped, tensors_of
from .surroundings import compiled, left_as_found, uncompiled
from .values import (
    UNKNOWN,
    Again,
    Call,
    Record,
    Value,
    as_it_is,
    can_be_called_again,
    is_made,
    kind_of,
    said,
    states_of,
    version_of,
)  # fmt: skip

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

Edit = Callable[["Tensor"], "Tensor"]

# A layer is kept as it was in a call only if its weights are this many times smaller than what it put out.
_SMALLER = 8
# Calls that need other calls to be made again first, at most this many in a row.
_DEEPEST = 32

# Hooks and flags sit on the module itself, so two traces at a time would disturb each other.
one_at_a_time = threading.RLock()
# Addresses that an earlier whole trace found nobody writes to, by module: the calls that made them need not be kept.
_stays: weakref.WeakKeyDictionary[Any, set[str]] = weakref.WeakKeyDictionary()


def note_stays(module: Module, addresses: set[str]) -> None:
    """Remember that nobody writes to what was put out under these addresses."""
    _stays.setdefault(module, set()).update(addresses)


class _Stop(BaseException):
    """The last layer asked for has been seen. Not an Exception, so that few modules' except clauses swallow it."""


class Run:
    """One run of a module with hooks on it: `go` runs it, `settle` arranges that every value can be had."""

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
        self.compiled = compiled({"": module, **self.parts})
        self.weights = {id(t): t for part in (module, *self.parts.values()) for t in states_of(part)}
        self.records: dict[str, Record] = {}
        self.output: Any = None
        self.seen: dict[str, int] = {}  # how many tensors each module has put out
        self.silent: dict[str, str] = {}  # modules that put out no tensor, and what they put out
        self.stays = _stays.get(module, frozenset())
        self.pure: set[int] = set()  # modules whose calls can be made again
        self.values: dict[tuple[int, int], Value] = {}  # by identity of the tensor, and its version
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
            stack.enter_context(left_as_found(self.module))
            stack.enter_context(uncompiled())
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
            if not self.grad and not self.note and can_be_called_again(part):
                self.pure.add(id(part))
                if getattr(part, "inplace", False):
                    stack.callback(part.register_forward_pre_hook(self._before, with_kwargs=True).remove)
            stack.callback(part.register_forward_hook(partial(self._after, name), with_kwargs=True).remove)

    def _ours(self) -> bool:
        """Not a call from another thread, nor one that an edit makes."""
        return self.listening and threading.get_ident() == self.thread

    def _before(self, part: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._ours():
            self.entered[id(part)] = [version_of(t) for t in tensors_of((args, kwargs))]

    def _after(self, name: str, part: Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        if not self._ours():
            return None
        if self.stopped or self.failure:
            raise _Stop  # the module swallowed the first one
        call = Call(part, args, kwargs, output, self.entered.pop(id(part), None))
        new = mapped(output, partial(self._put_out, name, call))
        if not call.place:
            self.silent[name] = "None" if output is None else f"a {type(output).__name__}"
        if self.left is not None and not self.left and not self.to_end:
            self.stopped = True
            raise _Stop
        return None if new is output else new

    def _put_out(self, name: str, call: Call, tensor: Tensor) -> Tensor:
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
        if isinstance(new, torch.Tensor) and kind_of(new) == kind_of(tensor):
            return new.clone()  # it may be the caller's own, and the network may write into it
        given = said(new) if isinstance(new, torch.Tensor) else f"a {type(new).__name__}"
        self.failure = UsageError(
            f"The edit of {address!r} gave {given}; {said(tensor)} is needed.",
            "Return a tensor of the same shape, type and device.",
        )
        raise self.failure

    def _recorded(self, address: str, call: Call, tensor: Tensor) -> Tensor:
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
        self.records[address] = Record(address, call.part, tuple(tensor.shape), value)
        if tensor.is_inference() or (not self.grad and self._is_weight(tensor)):
            value.take_copy(tensor)  # it has no counter, or one that the next training step moves on
        elif address in self.copies:
            if not self.grad:
                value.take_copy(tensor)
            elif call.owns(tensor) and not call.passes_on(tensor):
                return tensor.clone()  # the original stays where gradients pass; the copy is what gets overwritten
        return tensor

    def _known(self, tensor: Tensor, version: int | None = None) -> Value | None:
        """The value that this tensor holds (or held at that version), if it was seen before."""
        value = self.values.get((id(tensor), version_of(tensor) if version is None else version))
        return value if value is not None and value.is_of(tensor) and not tensor.is_inference() else None

    def _remember(self, tensor: Tensor) -> Value:
        value = Value(tensor)
        self.values[id(tensor), value.version] = value
        return value

    def _is_weight(self, tensor: Tensor) -> bool:
        return id(tensor._base if tensor._is_view() else tensor) in self.weights

    def _again(self, call: Call, tensor: Tensor) -> Again | None:
        """The layer as it is in this call, and what it was given; None when that cannot be kept."""
        import torch

        if sum(s.numel() for s in states_of(call.part)) * _SMALLER > tensor.numel():
            return None
        if torch.is_autocast_enabled(tensor.device.type):
            return None
        versions = iter(call.versions or [version_of(t) for t in tensors_of((call.args, call.kwargs))])
        args = [self._given(entry, versions) for entry in call.args]
        kwargs = {key: self._given(entry, versions) for key, entry in call.kwargs.items()}
        depth = 1 + max((e.again.depth for e in (*args, *kwargs.values()) if is_made(e)), default=0)
        entries = [*args, *kwargs.values()]
        passed_on = any(isinstance(e, Value) and e.is_of(tensor) and e.version == version_of(tensor) for e in entries)
        if passed_on or depth > _DEEPEST or any(entry is UNKNOWN for entry in entries):
            return None
        return Again(as_it_is(call.part), args, kwargs, call.place, kind_of(tensor), depth)

    def _given(self, entry: Any, versions: Iterator[int]) -> Any:
        """One argument of a call, so that it can be given once more: a value, or a constant."""
        import torch

        if not isinstance(entry, torch.Tensor):
            return entry if entry is None or isinstance(entry, (bool, int, float, str)) else UNKNOWN
        version = next(versions)
        if entry.is_inference() or self._is_weight(entry):
            return UNKNOWN
        # Whoever asks for few layers keeps few tensors, and can afford to keep their inputs; others only watch them.
        return self._known(entry, version) or Value(entry, version, keep=self.wanted is not None)

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
            f"The network failed {place} on a tensor of shape {shape}; its own input was {said(self.tensor)}: {error}",
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


def _path(address: str) -> str:
    return address.partition("#")[0]


def _place(address: str) -> int:
    return int(address.partition("#")[2] or 0)
