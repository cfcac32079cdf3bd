"""What a tensor held at one moment: the tensor itself, a copy, or the call that can make it again."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import NetworkError
from .structures import tensors_of

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

# torch's own families of layers whose output depends on nothing but their input, weights and settings.
_PURE = {
    *("activation", "batchnorm", "channelshuffle", "conv", "distance", "dropout", "flatten", "fold"),
    *("instancenorm", "linear", "normalization", "padding", "pixelshuffle", "pooling", "sparse", "upsampling"),
}
_RANDOM = {"FractionalMaxPool2d", "FractionalMaxPool3d"}
UNKNOWN = object()  # an argument that cannot be given once more


class Value:
    """What one tensor held at one moment: the tensor while nobody writes to it, a copy, or the call that made it."""

    __slots__ = ("_made", "_made_version", "_weak", "again", "copied", "refused", "tensor", "version")

    def __init__(self, tensor: Tensor, version: int | None = None, keep: bool = True) -> None:
        self.version = version_of(tensor) if version is None else version
        self.tensor: Tensor | None = tensor if keep else None
        self.again: Again | None = None
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
            self.version = version_of(self.tensor)

    def intact(self) -> bool:
        tensor = self.tensor if self.tensor is not None else None if self.copied else self._weak()
        return tensor is not None and version_of(tensor) == self.version

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
            if made is None or version_of(made) != self._made_version:
                made = self.again.make(address)
                self._made, self._made_version = weakref.ref(made), version_of(made)
            return made
        if self.tensor is None or not self.intact():
            raise NetworkError(
                f"The value of {address!r} was changed in place after the trace was made.",
                "Clone a traced value before changing it.",
            )
        return self.tensor


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """What one module put out under one address."""

    address: str
    module: Module
    shape: tuple[int, ...]
    value: Value


@dataclass(slots=True, eq=False)
class Call:
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
        memory = memory_of(tensor)
        return memory is not None and all(memory_of(t) not in (memory, None) for t in others)

    def passes_on(self, tensor: Tensor) -> bool:
        """Whether this is the very tensor that went in."""
        return any(t is tensor for t in tensors_of((self.args, self.kwargs)))


@dataclass(frozen=True, slots=True, eq=False)
class Again:
    """A call of one of torch's own layers, kept so that it can be made once more: the layer as it was, and its input."""

    part: Module
    args: list[Any]
    kwargs: dict[str, Any]
    place: int
    kind: tuple[Any, ...]
    depth: int

    def values(self) -> list[Value]:
        return [entry for entry in (*self.args, *self.kwargs.values()) if isinstance(entry, Value)]

    def make(self, address: str) -> Tensor:
        import torch

        in_place = bool(getattr(self.part, "inplace", False))

        def given(entry: Any) -> Any:
            if not isinstance(entry, Value):
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
        if kind_of(made) != self.kind:
            raise NetworkError(
                f"The value of {address!r} came out as {said(made)} when it was made again.", "Trace again."
            )
        return made


def is_made(entry: Any) -> bool:
    return isinstance(entry, Value) and entry.again is not None


def can_be_called_again(part: Module) -> bool:
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


def as_it_is(part: Module) -> Module:
    """A private twin of a leaf layer with weights of its own, so that training on does not change it."""
    twin = object.__new__(type(part))
    twin.__dict__.update(part.__dict__)
    for kind in ("_parameters", "_buffers"):
        states = part.__dict__[kind].items()
        twin.__dict__[kind] = {name: None if t is None else t.detach().clone() for name, t in states}
    return twin


def states_of(part: Module) -> list[Tensor]:
    return [t for t in (*part._parameters.values(), *part._buffers.values()) if t is not None]


def version_of(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


def kind_of(tensor: Tensor) -> tuple[Any, ...]:
    return tuple(tensor.shape), tensor.dtype, tensor.device


def said(tensor: Tensor) -> str:
    device = "" if tensor.device.type == "cpu" else f" on {tensor.device}"
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}{device}"


def memory_of(tensor: Tensor) -> int | None:
    try:
        return tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):  # sparse tensors and others without one storage
        return None
