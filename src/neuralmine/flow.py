"""Which layer feeds which: measured in one run of the network, by watching every operation.

Each tensor carries the names of those that it came from: the network's input, or the innermost modules whose outputs
reached it through operations that belong to no such module (view, add, cat, …). When one of these gets a tensor, its
sources are noted; what it puts out comes from it alone. An operation that puts tensors of different sources together
is a join. What a number read out of a tensor decides, and what only a tensor's shape decides, is not followed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .tracing.run import Run, one_at_a_time
from .tracing.structures import mapped, tensors_of
from .tracing.values import memory_of, version_of
from .types import Network

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

INPUT = ""
OUTPUT = "output"

Edge = tuple[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class Flow:
    """What feeds what in a network. All is in execution order, so every pair goes forward.

    `nodes` are the network's input (""), the innermost modules as `network.layers` names them, the joins (each named
    after the module in whose forward it was done: "features.3.cat 1", or "add 1" in the network's own), and last the
    network's output: "output", or "output of the network" where a layer has that name.
    `links` are the pairs between all of these. `joins` says what each join does.
    """

    nodes: tuple[str, ...]
    links: tuple[Edge, ...]
    joins: Mapping[str, str]

    @property
    def output(self) -> str:
        """The name of the network's output."""
        return self.nodes[-1]

    @property
    def layers(self) -> tuple[str, ...]:
        """The nodes that are layers."""
        return tuple(node for node in self.nodes[1:-1] if node not in self.joins)

    @property
    def edges(self) -> tuple[Edge, ...]:
        """The pairs with the joins left out: what fed a join feeds all that the join feeds."""
        place = {node: i for i, node in enumerate(self.nodes)}
        behind: dict[str, set[str]] = {node: set() for node in self.nodes}
        for node, sources in self.fed().items():  # in execution order: what a join is fed by is known before it
            for source in sources:
                behind[node] |= behind[source] if source in self.joins else {source}
        return tuple(
            (source, node)
            for node in self.nodes
            if node not in self.joins
            for source in sorted(behind[node], key=place.__getitem__)
        )

    def fed(self) -> dict[str, tuple[str, ...]]:
        """For each node, the nodes linked to it."""
        found: dict[str, list[str]] = {node: [] for node in self.nodes}
        for source, node in self.links:
            found[node].append(source)
        return {node: tuple(sources) for node, sources in found.items()}


def edges_of(network: Network) -> tuple[Edge, ...]:
    """Which layer feeds which: pairs of addresses, with "" for the network's input and "output" for its output.

    >>> import torch, neuralmine as nm
    >>> edges_of(nm.load(torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU())))
    (('', '0'), ('0', '1'), ('1', 'output'))
    """
    return flow_of(network).edges


def flow_of(network: Network, raw: Any = None) -> Flow:
    """Which layer feeds which, and what joins them, measured in one run of `raw` (an example when it is None).

    A layer here is a module in whose call no other was called. Raises NetworkError when the network fails.

    >>> import torch, neuralmine as nm
    >>> class Skip(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.sum = torch.nn.Linear(4, 4)
    ...     def forward(self, x):
    ...         return x + self.sum(x)
    >>> flow_of(nm.load(Skip(), shape=(4,))).links
    (('', 'sum'), ('', 'add 1'), ('sum', 'add 1'), ('add 1', 'output'))
    """
    import torch

    if raw is None:
        raw = "a river of gold" if network.domain == "tokens" else np.zeros(network.shape, dtype=np.float32)
    given = raw if isinstance(raw, torch.Tensor) else network.encode(raw)
    with one_at_a_time:
        run = _Followed(network.module, given, shape=network.shape)
        run.go()
    return run.watch.flow()


# ── Sources, carried along tensors ──

# These give a tensor of the same shape, not of the same values.
_SHAPE_ONLY = ("_like", "new_empty", "new_full", "new_ones", "new_zeros", "new_empty_strided")
# These write over a tensor, whatever was in it.
_OVER = {"copy_", "zero_", "fill_", "normal_", "uniform_", "bernoulli_", "random_", "exponential_", "set_"}
_SAID = {"bmm": "matmul", "mm": "matmul", "addmm": "matmul", "baddbmm": "matmul", "mv": "matmul", "dot": "matmul"}

Sources = frozenset[str]
_NONE: Sources = frozenset()


@dataclass(slots=True, eq=False)
class _Watch:
    """Where every tensor came from."""

    # Tensors are kept alive, so that an id is never used twice.
    seen: dict[int, tuple[Tensor, Sources]] = field(default_factory=dict)
    sharing: dict[int, list[Tensor]] = field(default_factory=dict)  # by the memory that they share
    order: dict[str, int] = field(default_factory=lambda: {INPUT: 0})
    links: list[Edge] = field(default_factory=list)
    joins: dict[str, tuple[str, str]] = field(default_factory=dict)  # in which module, and what it does
    where: str = ""  # the innermost module at work
    put_out: Sources = _NONE

    def of(self, tensor: Tensor) -> Sources:
        if id(tensor) not in self.seen:
            self.put(tensor, _NONE)  # a weight, or made where nobody could see it
        return self.seen[id(tensor)][1]

    def all_of(self, tensors: Iterable[Tensor]) -> Sources:
        return _NONE.union(*(self.of(tensor) for tensor in tensors))

    def put(self, tensor: Tensor, sources: Sources) -> None:
        if id(tensor) not in self.seen:
            memory = memory_of(tensor)
            if memory:
                self.sharing.setdefault(memory, []).append(tensor)
        self.seen[id(tensor)] = (tensor, sources)

    def wrote(self, tensor: Tensor, sources: Sources) -> None:
        """A tensor was written to: so were those that share its memory, where they overlap."""
        self.put(tensor, sources)
        low, high, whole = _span(tensor)
        for other in self.sharing.get(memory_of(tensor) or 0, ()):
            first, last, _ = _span(other)
            if other is tensor or last <= low or high <= first:
                continue
            covered = _same_place(tensor, other) or (whole and low <= first and last <= high)
            self.put(other, sources if covered else self.joined("write", [self.of(other), sources]))

    def joined(self, name: str, parts: list[Sources]) -> Sources:
        """The sources of what an operation made of these."""
        together = _NONE.union(*parts)
        if len(together) < 2 or any(part == together for part in parts):
            return together
        said = name.strip("_")
        said = "attention" if said.startswith("scaled_dot_product") else _SAID.get(said, said)
        node = f"join {len(self.joins)}\0"  # named when it is known which of them are of use
        self.joins[node] = self.where, said
        self.feed(node, together)
        return frozenset([node])

    def feed(self, node: str, sources: Sources) -> None:
        self.order[node] = len(self.order)
        self.links += [(source, node) for source in sorted(sources, key=self.order.__getitem__)]

    def passed(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        """One operation was done."""
        name = func.overloadpacket._qualified_op_name.split("::")[-1]
        if name.endswith(_SHAPE_ONLY):
            return
        written: list[Tensor] = []
        if func._schema.is_mutable:
            for i, argument in enumerate(func._schema.arguments):
                if argument.alias_info is not None and argument.alias_info.is_write:
                    given = args[i] if i < len(args) else kwargs.get(argument.name)
                    written += tensors_of(given)
        over = {id(tensor) for tensor in written} if name in _OVER or "out" in kwargs else ()
        parts = [self.of(tensor) for tensor in tensors_of((args, dict(kwargs))) if id(tensor) not in over]
        sources = self.joined(name, [part for part in parts if part])
        for tensor in tensors_of(output):
            self.put(tensor, sources)
        for tensor in written:
            self.wrote(tensor, sources)

    def flow(self) -> Flow:
        """What was seen, without the joins that nothing came of."""
        output = OUTPUT if OUTPUT not in self.order else f"{OUTPUT} of the network"
        self.feed(output, self.put_out)
        used = {node for node in self.order if node not in self.joins}
        for source, node in sorted(self.links, key=lambda link: -self.order[link[1]]):
            if node in used:
                used.add(source)
        names = {node: node for node in self.order if node in used}
        joins: dict[str, str] = {}
        counts: dict[tuple[str, str], int] = {}
        for node in [node for node in names if node in self.joins]:
            where, said = self.joins[node]
            counts[where, said] = counts.get((where, said), 0) + 1
            names[node] = f"{where}.{said} {counts[where, said]}".strip(".")
            joins[names[node]] = said
        links = [(names[a], names[b]) for a, b in self.links if b in used]
        return Flow(tuple(names.values()), tuple(links), joins)


def _span(tensor: Tensor) -> tuple[int, int, bool]:
    """Where a tensor begins and ends in memory, and whether it has all that lies in between."""
    if not tensor.numel():
        return 0, 0, True
    length = 1 + sum((count - 1) * step for count, step in zip(tensor.shape, tensor.stride(), strict=True))
    begin, size = tensor.data_ptr(), tensor.element_size()
    return begin, begin + length * size, length == tensor.numel()


def _same_place(one: Tensor, other: Tensor) -> bool:
    return one.data_ptr() == other.data_ptr() and one.shape == other.shape and one.stride() == other.stride()


# ── The run ──


@dataclass(slots=True, eq=False)
class _Entered:
    """A module's call that has begun: what it was given, and whether it called another module."""

    name: str
    part: Module
    sources: Sources
    given: dict[int, int]  # the tensors that went in, and their versions
    inner: bool = False


class _Followed(Run):
    """One run in which every operation and every call of a module is watched."""

    def __init__(self, module: Module, tensor: Tensor, **more: Any) -> None:
        super().__init__(module, tensor, **more)
        self.watch = _Watch()
        self.calls: list[_Entered] = []

    def _hook(self, stack: ExitStack) -> None:
        stack.enter_context(_mode(self.watch))
        stack.callback(self.module.register_forward_pre_hook(self._begin, with_kwargs=True).remove)
        stack.callback(self.module.register_forward_hook(self._end).remove)
        for name, part in self.parts.items():
            if name not in self.compiled:
                stack.callback(part.register_forward_pre_hook(partial(self._enter, name), with_kwargs=True).remove)
                stack.callback(part.register_forward_hook(partial(self._leave, name)).remove)

    def _begin(self, part: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for tensor in tensors_of((args, kwargs)):
            self.watch.put(tensor, frozenset([INPUT]))

    def _end(self, part: Module, args: tuple[Any, ...], output: Any) -> None:
        self.watch.put_out = self.watch.all_of(tensors_of(output))

    def _enter(self, name: str, part: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self._ours():
            return
        if self.calls:
            self.calls[-1].inner = True
        given = tensors_of((args, kwargs))
        self.calls.append(_Entered(name, part, self.watch.all_of(given), {id(t): version_of(t) for t in given}))
        self.watch.where = name

    def _leave(self, name: str, part: Module, args: tuple[Any, ...], output: Any) -> Any:
        if not self._ours():
            return None
        while (call := self.calls.pop()).part is not part:
            pass  # one that failed, and whose failure was caught
        self.watch.where = self.calls[-1].name if self.calls else ""
        new = mapped(output, partial(self._came_out, name, call))
        return None if new is output else new

    def _came_out(self, name: str, call: _Entered, tensor: Tensor) -> Tensor:
        """One tensor of a module's output, under the address that traces give it."""
        k = self.seen.get(name, 0)
        self.seen[name] = k + 1
        if call.inner:
            return tensor
        address = f"{name}#{k}" if k else name
        self.watch.feed(address, call.sources)
        before = call.given.get(id(tensor))
        if before is not None and before == version_of(tensor):
            # It was passed on as it is. What others hold of it did not come from here, so it needs another name.
            tensor = tensor.view_as(tensor)
            before = None
        if before is None:
            self.watch.put(tensor, frozenset([address]))
        else:
            self.watch.wrote(tensor, frozenset([address]))
        return tensor


def _mode(watch: _Watch) -> Any:
    """Every operation of torch is told to `watch`."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            output = func(*args, **(kwargs or {}))
            watch.passed(func, args, kwargs or {}, output)
            return output

    return Mode()
