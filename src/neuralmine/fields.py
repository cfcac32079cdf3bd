"""Which part of the picture a place of a layer's maps can see: its receptive field, by arithmetic.

The network runs once, and every operation is watched. For each place of a map two numbers an axis are carried along,
the first and the last row (column) of the picture that reach it: a convolution or a pooling takes the least and the
greatest over its window, an operation on each place keeps them, one on several maps takes both. What an operation
does that is not known here may reach everywhere, so behind it the field is the whole picture, and it is said why.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .tracing import tensors_of, trace
from .types import Network

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """What the places of a layer's maps see. Each pair is rows, then columns.

    `size` is what one place sees where no edge of the picture cuts it off, `stride` how far neighbours' fields lie
    apart, `offset` where the field of place 0 begins (below 0: in the padding). `rows` and `columns` (places × 2)
    hold, for each place, the first of the picture that it sees and the one after the last. `whole` says why nothing
    better than the whole picture is known; it is "" when the field was derived.
    """

    size: tuple[int, int]
    stride: tuple[int, int]
    offset: tuple[int, int]
    rows: np.ndarray
    columns: np.ndarray
    whole: str = ""

    def box(self, row: Any, column: Any) -> np.ndarray:
        """What these places see: … × (first row, first column, the row after the last, the column after the last)."""
        (top, bottom), (left, right) = self.rows[row].T, self.columns[column].T
        return np.stack([top.T, left.T, bottom.T, right.T], -1)


def field_of(network: Network, layer: str) -> Field:
    """The receptive field of a layer's maps (dims "… h w") in the input as the network takes it.

    Raises UnknownName for a layer that does not exist, NetworkError when the network fails.
    Source: Araujo, Norris and Sim (2019), "Computing Receptive Fields of Convolutional Neural Networks".

    >>> import torch
    >>> from neuralmine.networks.torch_module import network_of
    >>> module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 7, 2, padding=3), torch.nn.MaxPool2d(3, 2))
    >>> field = field_of(network_of(module, shape=(3, 32, 32)), "1")
    >>> field.size, field.stride, field.offset, field.box(0, 2).tolist()
    ((11, 11), (4, 4), (-3, -3), [0, 5, 8, 16])
    """
    return fields_of(network, [layer])[layer]


def fields_of(network: Network, layers: Iterable[str]) -> dict[str, Field]:
    """The receptive fields of several layers, by one run of the network."""
    import torch

    wanted = list(layers)
    places = {known.name: i for i, known in enumerate(network.layers)}
    picture = torch.as_tensor(network.encode(np.zeros(network.shape, dtype=np.float32)))
    watch = _Watch(picture)
    found: dict[str, Field] = {}

    def note(address: str, tensor: Tensor) -> Tensor:
        found[address] = watch.field(tensor)
        return tensor

    deepest = max(wanted, key=lambda name: places.get(name, len(places)))
    with watching(watch):
        trace(network, picture, layers=[deepest], edits={name: partial(note, name) for name in wanted})
    return {name: found[name] for name in wanted}


# ── One axis ──


@dataclass(frozen=True, slots=True, eq=False)
class _Axis:
    """Along one axis: `first` and `last` seen by each place (last < first: nothing), and the same without edges."""

    first: np.ndarray
    last: np.ndarray
    regular: tuple[int, int, int] | None  # size, stride, offset

    def windowed(self, kernel: int, stride: int, padding: int, dilation: int, count: int) -> _Axis:
        taps = np.arange(count)[:, None] * stride - padding + np.arange(kernel) * dilation
        inside = (taps >= 0) & (taps < len(self.first))
        taps = np.clip(taps, 0, len(self.first) - 1)
        first = np.where(inside, self.first[taps], _NEVER).min(1)
        last = np.where(inside, self.last[taps], -1).max(1)
        regular = None
        if self.regular:
            size, step, offset = self.regular
            regular = (size + (kernel - 1) * dilation * step, step * stride, offset - padding * step)
        return _Axis(first, last, regular)

    def pooled_to(self, count: int) -> _Axis:
        """Adaptive pooling: window i goes from floor(i n / count) to ceil((i + 1) n / count)."""
        size = len(self.first)
        if size % count == 0:
            return self.windowed(size // count, size // count, 0, 1, count)
        bounds = [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]
        first = np.array([self.first[low:high].min() for low, high in bounds])
        return _Axis(first, np.array([self.last[low:high].max() for low, high in bounds]), None)

    def padded(self, before: int, after: int) -> _Axis:
        """Places of zeros around; negative numbers cut off."""
        count = len(self.first) + before + after
        places = np.arange(count) - before
        inside = (places >= 0) & (places < len(self.first))
        places = np.clip(places, 0, len(self.first) - 1)
        regular = self.regular and (self.regular[0], self.regular[1], self.regular[2] - before * self.regular[1])
        return _Axis(np.where(inside, self.first[places], _NEVER), np.where(inside, self.last[places], -1), regular)

    def joined(self, other: _Axis) -> _Axis | None:
        """What both see together; None when neither the lengths agree nor one of them is 1, to be spread."""
        if len(self.first) != len(other.first) and 1 not in (len(self.first), len(other.first)):
            return None
        regular = None
        if (
            self.regular
            and other.regular
            and self.regular[1] == other.regular[1]
            and len(self.first) == len(other.first)
        ):
            offset = min(self.regular[2], other.regular[2])
            end = max(axis[2] + axis[0] for axis in (self.regular, other.regular))
            regular = (end - offset, self.regular[1], offset)
        return _Axis(np.minimum(self.first, other.first), np.maximum(self.last, other.last), regular)

    def settings(self) -> tuple[int, int, int]:
        return self.regular or (int((self.last - self.first + 1).max(initial=0)), 0, 0)

    def spans(self) -> np.ndarray:
        """Places × (first, one after the last); 0, 0 where nothing of the picture is seen."""
        seen = self.last >= self.first
        return np.stack([np.where(seen, self.first, 0), np.where(seen, self.last + 1, 0)], 1)


_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """What a tensor's last two axes see, or why that is not known."""

    rows: _Axis
    columns: _Axis
    whole: str = ""


# ── The watcher ──

# On a tensor's last two axes these do nothing but to each place alone; torch marks the pointwise ones itself.
_KEEPS = {"clone", "detach", "alias", "_to_copy", "copy_", "contiguous", "channel_shuffle", "dropout", "native_dropout"}
_NORMS = {"native_batch_norm", "_native_batch_norm_legit_no_training", "batch_norm", "cudnn_batch_norm"}
_REGROUPS = {"view", "_unsafe_view", "reshape", "expand", "squeeze", "unsqueeze"}
_OF_AXES = {"permute", "transpose", "slice", "select", "split", "split_with_sizes", "unbind"}
_REDUCES = {"mean", "sum", "amax", "amin", "_softmax", "cat"}


class _Watch:
    """What every tensor that depends on the picture sees, and the rules by which operations pass it on."""

    def __init__(self, picture: Tensor) -> None:
        flat = picture.ndim < 3
        self.size = (1 if flat else int(picture.shape[-2]), int(picture.shape[-1]))
        rows, columns = (_Axis(np.arange(n), np.arange(n), (1, 1, 0)) for n in self.size)
        # Tensors are kept alive, so that an id is never used twice.
        self.seen: dict[int, tuple[Tensor, _Seen]] = {}
        self.written: set[int] = set()
        whole = self.whole(picture, "the input has no rows and columns")
        self.put(picture, whole if flat else _Seen(rows, columns))

    def field(self, tensor: Tensor) -> Field:
        seen = self.of(tensor) or self.whole(tensor, "it does not depend on the picture")
        if len(seen.rows.first) != tensor.shape[-2] or len(seen.columns.first) != tensor.shape[-1]:
            seen = self.whole(tensor, "its rows and columns could not be followed")
        (high, down, top), (wide, along, left) = seen.rows.settings(), seen.columns.settings()
        rows, columns = seen.rows.spans(), seen.columns.spans()
        return Field((high, wide), (down, along), (top, left), rows, columns, seen.whole)

    def whole(self, tensor: Tensor, why: str) -> _Seen:
        counts = tensor.shape[-2:] if tensor.ndim > 1 else (1, 1)
        rows, columns = (
            _Axis(np.zeros(count, dtype=np.int64), np.full(count, size - 1), (size, 0, 0))
            for count, size in zip(counts, self.size, strict=True)
        )
        return _Seen(rows, columns, why)

    def of(self, tensor: Tensor) -> _Seen | None:
        """What a tensor sees; None when it does not depend on the picture."""
        known = self.seen.get(id(tensor))
        if known is None and _memory(tensor) in self.written:
            return self.whole(tensor, "a part of it was written in place")
        return known[1] if known else None

    def put(self, tensor: Tensor, seen: _Seen) -> None:
        if tensor.ndim > 1:
            seen = _Seen(_spread(seen.rows, tensor.shape[-2]), _spread(seen.columns, tensor.shape[-1]), seen.whole)
        self.seen[id(tensor)] = (tensor, seen)

    def passed(
        self, name: str, pointwise: bool, mutable: bool, args: tuple[Any, ...], kwargs: Any, output: Any
    ) -> None:
        """One operation was done."""
        sources = [(t, seen) for t in tensors_of((args, kwargs)) if (seen := self.of(t)) is not None]
        if not sources:
            return
        for tensor in tensors_of(output):
            seen = self.rule(name, pointwise, args, kwargs, sources, tensor)
            self.put(
                tensor, seen or self.whole(tensor, next((s.whole for _, s in sources if s.whole), f"behind {name!r}"))
            )
        if mutable and tensors_of(args):
            self.wrote(tensors_of(args)[0], tensors_of(output))

    def wrote(self, target: Tensor, output: list[Tensor]) -> None:
        """What shares its memory with a tensor that was written to sees no longer what it saw."""
        if output:
            self.put(target, self.seen[id(output[0])][1])
        now, memory = self.seen.get(id(target)), _memory(target)
        for other, seen in list(self.seen.values()):
            if other is target or _memory(other) != memory or (now and seen is now[1]):
                continue
            same = now and other.shape == target.shape and other.data_ptr() == target.data_ptr()
            self.put(other, now[1] if now and same else self.whole(other, "a part of it was written in place"))
        self.written.add(memory)

    def rule(
        self,
        name: str,
        pointwise: bool,
        args: tuple[Any, ...],
        kwargs: Any,
        sources: list[tuple[Tensor, _Seen]],
        output: Tensor,
    ) -> _Seen | None:
        """What an output sees, or None when this operation is not known."""
        given, seen = sources[0]
        if pointwise or name in _KEEPS:
            return _joined([s for _, s in sources])
        if name in _NORMS and len(sources) == 1 and not any(entry is True for entry in args):
            return seen if output.shape == given.shape else None
        if name == "convolution" and len(sources) == 1 and not args[6] and given.ndim == 4:
            return _windowed(seen, args[1].shape[-2:], args[3], args[4], args[5], output)
        if name in ("max_pool2d_with_indices", "max_pool2d", "avg_pool2d", "avg_pool3d", "max_pool3d_with_indices"):
            return self._pooled(name, args, seen, output)
        if name in ("_adaptive_avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d"):
            rows, columns = output.shape[-2:]
            return _Seen(seen.rows.pooled_to(rows), seen.columns.pooled_to(columns), seen.whole)
        if name == "constant_pad_nd":
            left, right, top, bottom = (*args[1], 0, 0)[:4]
            return _Seen(seen.rows.padded(top, bottom), seen.columns.padded(left, right), seen.whole)
        if name in _REGROUPS:
            return seen if output.ndim > 2 and given.ndim > 2 and output.shape[-2:] == given.shape[-2:] else None
        if name in _OF_AXES or name in _REDUCES:
            return self._of_axes(name, args, sources, output)
        return None

    def _pooled(self, name: str, args: tuple[Any, ...], seen: _Seen, output: Tensor) -> _Seen:
        kernel = _two(args[1])
        stride = _two(args[2]) if len(args) > 2 and args[2] else kernel
        padding = _two(args[3]) if len(args) > 3 else (0, 0)
        dilation = _two(args[4]) if name.startswith("max") and len(args) > 4 else (1, 1)
        return _windowed(seen, kernel, stride, padding, dilation, output)

    def _of_axes(
        self, name: str, args: tuple[Any, ...], sources: list[tuple[Tensor, _Seen]], output: Tensor
    ) -> _Seen | None:
        """Operations along axes that are named: those along others than the last two leave these alone."""
        given, seen = sources[0]
        ndim = given.ndim
        if name in ("mean", "sum", "amax", "amin"):
            named = args[1] if len(args) > 1 and args[1] is not None else list(range(ndim))
            axes = {axis % ndim for axis in (named if isinstance(named, (list, tuple)) else [named])}
            both = {ndim - 2, ndim - 1}
            if axes == both and output.ndim == ndim:
                return _Seen(seen.rows.pooled_to(1), seen.columns.pooled_to(1), seen.whole)
            return None if axes & both else seen
        if name == "permute":
            order = [axis % ndim for axis in args[1]]
            return seen if order[-2:] == [ndim - 2, ndim - 1] else None
        places = {"transpose": args[1:3], "split": args[2:3], "split_with_sizes": args[2:3], "cat": args[1:2]}
        axes = [axis % ndim for axis in places.get(name, args[1:2]) if isinstance(axis, int)] or [0]
        return None if any(axis >= ndim - 2 for axis in axes) else _joined([s for _, s in sources])


@contextmanager
def watching(watch: _Watch) -> Iterator[None]:
    """Every operation of torch in this block is told to `watch`."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            output = func(*args, **(kwargs or {}))
            name = func.overloadpacket._qualified_op_name.split("::")[-1]
            watch.passed(name, torch.Tag.pointwise in func.tags, func._schema.is_mutable, args, kwargs, output)
            return output

    with Mode():
        yield


def _joined(sources: list[_Seen]) -> _Seen | None:
    rows, columns = sources[0].rows, sources[0].columns
    if len(sources) == 1:
        return sources[0]
    for other in sources[1:]:
        more_rows, more_columns = rows.joined(other.rows), columns.joined(other.columns)
        if more_rows is None or more_columns is None:
            return None
        rows, columns = more_rows, more_columns
    return _Seen(rows, columns, next((one.whole for one in sources if one.whole), ""))


def _windowed(seen: _Seen, kernel: Any, stride: Any, padding: Any, dilation: Any, output: Tensor) -> _Seen:
    (k, m), (s, t), (p, q), (d, e) = (_two(entry) for entry in (kernel, stride, padding, dilation))
    rows = seen.rows.windowed(k, s, p, d, int(output.shape[-2]))
    return _Seen(rows, seen.columns.windowed(m, t, q, e, int(output.shape[-1])), seen.whole)


def _two(entry: Any) -> tuple[int, int]:
    """Settings of rows and columns; torch gives one number when they are alike, and those of depth in front."""
    values = [int(v) for v in entry] if isinstance(entry, Iterable) else [int(entry)]
    return (values[0], values[0]) if len(values) == 1 else (values[-2], values[-1])


def _spread(axis: _Axis, count: int) -> _Axis:
    if len(axis.first) != 1 or count == 1:
        return axis
    return _Axis(axis.first.repeat(count), axis.last.repeat(count), None)


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
