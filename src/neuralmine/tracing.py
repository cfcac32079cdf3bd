"""Hooks on, run, hooks off. Values are what each layer produced, also when a later in-place operation overwrote them.

Nothing is copied beforehand: references are kept with their version counter, and after the run those whose counter
moved are known to be overwritten. A leaf layer's value is then made again from its input, if that is intact, when
somebody asks for it; where that is impossible the network is run once more, with copies of just those values, and
the network's addresses that need copies are remembered.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .errors import NetworkError, NeuralmineError, UsageError
from .types import Activation, Layer, Network, Trace

if TYPE_CHECKING:
    import torch

Edit = Callable[["torch.Tensor"], "torch.Tensor"]

# Addresses whose values must be copied at once, found in earlier runs of the same module.
_copied: weakref.WeakKeyDictionary[Any, set[str]] = weakref.WeakKeyDictionary()


def trace(
    network: Network,
    raw: Any,
    *,
    layers: Iterable[str] | None = None,
    edits: Mapping[str, Edit] | None = None,
    grad: bool = False,
) -> Trace:
    """Run one input (or batch) and keep what every layer put out.

    `raw` is encoded by the network; a tensor is taken as an encoded batch. `layers` limits the trace and stops the
    run after the last of them (there is then no output). `edits` maps a layer to a function of its tensor whose
    result, of the same shape, replaces it for all that follows. `grad=True` keeps the graph for backward passes.

    Raises UnknownName for a layer that does not exist, UsageError for an edit that does not fit, NetworkError when
    the network fails, naming the layer.

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
    wanted = None if layers is None else list(layers)
    for name in (*(wanted or ()), *edits):
        network.layer(name)
    known = {layer.name: layer for layer in network.layers}
    run = _run(network.module, tensor, wanted, edits, grad)
    for name in (*(wanted or ()), *edits):
        if name not in run.records:
            raise NetworkError(f"Layer {name!r} was not reached with this input.", "Choose another layer or input.")
    activations = {}
    for name, record in run.records.items():
        if wanted is not None and name not in wanted:
            continue
        value = record.value
        layer = known.get(name) or _layer(name, run.modules[name.split("#")[0]], record.shape)
        activations[name] = Activation(dataclasses.replace(layer, shape=record.shape), value)
    return Trace(network, tensor, run.output, activations, run.untraced)


def describe(module: torch.nn.Module, example: torch.Tensor) -> tuple[tuple[Layer, ...], dict[str, str]]:
    """The layers of a module in execution order, found by running `example`, and what cannot be traced, with why."""
    run = _run(module, example, None, {}, False)
    found = tuple(_layer(name, run.modules[name.split("#")[0]], record.shape) for name, record in run.records.items())
    return found, run.untraced


def _layer(name: str, module: torch.nn.Module, shape: tuple[int, ...]) -> Layer:
    own = sum(p.numel() for p in module.parameters(recurse=False))
    return Layer(name, type(module).__name__, dims_of(shape), shape, own)


def dims_of(shape: tuple[int, ...]) -> str:
    """Dims in einops style, read off the rank: batch and units, tokens, maps; more are numbered.

    >>> dims_of((1, 64, 55, 55))
    'b c h w'
    """
    known = {0: "", 1: "b", 2: "b d", 3: "b t d", 4: "b c h w", 5: "b c t h w"}
    return known.get(len(shape)) or "b " + " ".join(f"d{i}" for i in range(1, len(shape)))


class _Stop(BaseException):
    """The deepest layer asked for has been seen; not an error, so that no module's except clause swallows it."""


@dataclass(eq=False, slots=True)
class _Record:
    """One tensor that a module put out, and enough to make it again."""

    name: str
    tensor: torch.Tensor | None
    version: int
    shape: tuple[int, ...]
    module: Any = None
    inputs: tuple[tuple[weakref.ref, int], ...] = ()
    place: int = 0
    remade: Callable[[], torch.Tensor] | None = None

    def intact(self) -> bool:
        return self.tensor is not None and self.tensor._version == self.version

    def value(self) -> torch.Tensor:
        if self.remade is not None:
            self.tensor, self.remade = self.remade(), None
            self.version = self.tensor._version
        elif not self.intact():
            raise NetworkError(
                f"The value of {self.name!r} was changed in place after the trace was made.",
                "Clone a traced value before changing it.",
            )
        assert self.tensor is not None
        return self.tensor


@dataclass(eq=False, slots=True)
class _Result:
    records: dict[str, _Record] = field(default_factory=dict)
    modules: dict[str, Any] = field(default_factory=dict)
    untraced: dict[str, str] = field(default_factory=dict)
    output: Any = None


def _run(
    module: torch.nn.Module, tensor: torch.Tensor, wanted: list[str] | None, edits: Mapping[str, Edit], grad: bool
) -> _Result:
    import torch

    copies = _copied.get(module, set())
    random_state = torch.get_rng_state()
    try:
        result = _once(module, tensor, wanted, edits, grad, copies)
        lost = _overwritten(result, grad, wanted)
        if lost:
            # Some values are gone and cannot be made again: once more, with copies of those.
            torch.set_rng_state(random_state)
            _copied[module] = copies = copies | lost
            result = _once(module, tensor, wanted, edits, grad, copies)
            lost = _overwritten(result, grad, wanted)
            if lost:
                raise NetworkError(
                    f"The values of {', '.join(sorted(lost))} differ from run to run.", "Trace a deterministic network."
                )
    finally:
        torch.set_rng_state(random_state)
    return result


def _once(
    module: torch.nn.Module,
    tensor: torch.Tensor,
    wanted: list[str] | None,
    edits: Mapping[str, Edit],
    grad: bool,
    copies: set[str],
) -> _Result:
    import torch

    result = _Result()
    counts: dict[str, int] = {}
    running: list[str] = []
    missing = None if wanted is None else set(wanted) | set(edits)
    names = [(name, part) for name, part in module.named_modules() if name]

    def before(name: str) -> Callable[..., None]:
        def hook(part: Any, given: tuple[Any, ...]) -> None:
            running.append(name)
            if not any(True for _ in part.children()):
                entered[name] = tuple((weakref.ref(t), t._version) for t in tensors_of(given))

        return hook

    def after(name: str) -> Callable[..., Any]:
        def hook(part: Any, given: tuple[Any, ...], output: Any) -> Any:
            running.pop()
            result.modules[name] = part
            fresh = tensors_of(output)
            if not fresh:
                result.untraced.setdefault(name, "it put out no tensor")
                return None
            result.untraced.pop(name, None)
            changed = False
            for place, value in enumerate(fresh):
                k = counts.get(name, 0)
                counts[name] = k + 1
                address = name if k == 0 else f"{name}#{k}"
                if address in edits:
                    fresh[place] = value = _edited(address, edits[address], value)
                    changed = True
                kept = value.clone() if address in copies else value
                # Only a plain call of a leaf can be repeated from its inputs.
                again = entered.get(name) if address not in edits and len(tensors_of(given)) == len(given) else None
                record = _Record(address, kept, kept._version, tuple(value.shape), part, again or (), place)
                if missing is None or address in missing:
                    result.records[address] = record
                    if missing is not None:
                        missing.discard(address)
            entered.pop(name, None)
            if missing is not None and not missing:
                raise _Stop
            return replaced(output, iter(fresh)) if changed else None

        return hook

    entered: dict[str, tuple] = {}
    hooks = []
    training = [(part, part.training) for part in module.modules()]
    try:
        for name, part in names:
            if isinstance(part, torch.jit.ScriptModule) and not isinstance(part, torch.jit.TracedModule):
                result.untraced[name] = "it is compiled by TorchScript, which runs no hooks inside"
            hooks.append(part.register_forward_pre_hook(before(name)))
            hooks.append(part.register_forward_hook(after(name)))
        module.eval()
        with torch.set_grad_enabled(grad):
            result.output = module(tensor)
    except _Stop:
        pass
    except NeuralmineError:
        raise
    except Exception as error:
        where = f"in its layer {running[-1]!r}" if running else "before its first layer"
        raise NetworkError(
            f"The network failed {where} on an input of shape {tuple(tensor.shape)}: {error}",
            "Check the input's shape and type.",
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
        for part, flag in training:
            part.training = flag
    if wanted is None:
        for name, _ in names:
            if name not in result.modules and name not in result.untraced:
                result.untraced[name] = "it was never called"
    return result


def _overwritten(result: _Result, grad: bool, wanted: list[str] | None) -> set[str]:
    """Arrange for overwritten values to be made again on demand; the names of those that cannot be."""
    lost: set[str] = set()
    by_tensor: dict[int, list[_Record]] = {}
    for record in result.records.values():
        if record.tensor is not None:
            by_tensor.setdefault(id(record.tensor), []).append(record)
    for record in result.records.values():
        if record.intact():
            continue
        inputs = [_intact_input(ref, version, by_tensor) for ref, version in record.inputs]
        repeatable = not grad and bool(inputs) and all(value is not None for value in inputs)
        if repeatable and not _random_or_in_place(record.module):
            record.remade = _again(record, inputs)
            record.tensor = None
        else:
            lost.add(record.name)
    return lost


def _intact_input(ref: weakref.ref, version: int, by_tensor: Mapping[int, list[_Record]]) -> Callable[[], Any] | None:
    tensor = ref()
    if tensor is None:
        return None
    if tensor._version == version:
        return lambda: tensor
    for record in by_tensor.get(id(tensor), []):
        if record.version == version and record.remade is not None:
            return record.value
    return None


def _random_or_in_place(module: Any) -> bool:
    return bool(getattr(module, "inplace", False)) or type(module).__module__.split(".")[0] != "torch"


def _again(record: _Record, inputs: list[Any]) -> Callable[[], torch.Tensor]:
    import torch

    module, place, shape = record.module, record.place, record.shape
    state = [(tensor, tensor._version) for tensor in (*module.parameters(), *module.buffers())]

    def remake() -> torch.Tensor:
        if any(tensor._version != version for tensor, version in state):
            raise NetworkError(
                f"The weights of {record.name!r} changed since this trace, and its value was not kept.",
                "Read traced values before training on, or trace again.",
            )
        flags = module.training
        try:
            module.training = False
            with torch.no_grad():
                value = tensors_of(module.forward(*(make() for make in inputs)))[place]
        finally:
            module.training = flags
        assert tuple(value.shape) == shape
        return value

    return remake


def _edited(address: str, edit: Edit, value: torch.Tensor) -> torch.Tensor:
    import torch

    new = edit(value)
    if not isinstance(new, torch.Tensor) or new.shape != value.shape or new.dtype != value.dtype:
        given = f"{tuple(new.shape)} {new.dtype}" if isinstance(new, torch.Tensor) else type(new).__name__
        raise UsageError(
            f"The edit of {address!r} gave {given}; {tuple(value.shape)} {value.dtype} is needed.",
            "Return a tensor of the same shape and type.",
        )
    return new


def tensors_of(value: Any) -> list[Any]:
    """The tensors in nested tuples, lists, dicts and dataclasses, in order."""
    import torch

    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [t for entry in value.values() for t in tensors_of(entry)]
    if isinstance(value, (list, tuple)):
        return [t for entry in value for t in tensors_of(entry)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [t for f in dataclasses.fields(value) for t in tensors_of(getattr(value, f.name))]
    return []


def replaced(value: Any, fresh: Any) -> Any:
    """The same structure with its tensors taken in order from the iterator `fresh`."""
    import torch

    if isinstance(value, torch.Tensor):
        return next(fresh)
    if isinstance(value, Mapping):
        new = {key: replaced(entry, fresh) for key, entry in value.items()}
        return type(value)(**new) if dataclasses.is_dataclass(value) else type(value)(new)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(replaced(entry, fresh) for entry in value))
    if isinstance(value, (list, tuple)):
        return type(value)(replaced(entry, fresh) for entry in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: replaced(getattr(value, f.name), fresh) for f in dataclasses.fields(value) if f.init}
        return dataclasses.replace(value, **fields)
    return value
