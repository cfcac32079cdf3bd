"""The loss around a network: directions in the space of its weights, and the exact loss at any point of their plane.

plane = random_plane(network)                      # or trajectory_plane, between_plane
losses = Landscape(network, data, plane).at([(0, 0), (0.5, -0.5)])
for step in surface_steps(Landscape(network, data, plane), x, y): ...    # coarse first, then finer
"""

from __future__ import annotations

import copy
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import DataError, UsageError
from .losses import LOSSES, ideal, mean_loss
from .types import Dataset, Network

if TYPE_CHECKING:
    import torch

TINY = 1e-10  # Li's own: keeps a direction of zeros from dividing by zero
CELLS = 1 << 18  # numbers worked on at once: they and their results stay in the processor's cache
POINTS, IMAGES = 64, 2048  # at most so many at once
KEPT = 1 << 24  # numbers of the first layer's sums that are kept between calls
_SMOOTH = ("Sigmoid", "Tanh", "ReLU")


# ── Directions ──


@dataclass(frozen=True, slots=True, eq=False)
class Plane:
    """One or two directions from a network's weights θ: the point (x, y) is θ + x·directions[0] + y·directions[1].

    Each direction holds an array for every parameter, named as `named_parameters` does. `path` (steps × 2) are the
    places of a trajectory's weights on it, `explained` the share of the trajectory's variance along each direction.
    `buffers` are what moves along x besides the weights: the batch norms' statistics on the way to another network.
    """

    directions: tuple[Mapping[str, np.ndarray], ...]
    about: str
    path: np.ndarray | None = None
    explained: np.ndarray | None = None
    buffers: Mapping[str, np.ndarray] = field(default_factory=dict)


def weights_of(network: Network) -> dict[str, np.ndarray]:
    """A network's parameters by name, as float64. Raises UsageError when it has none."""
    found = {name: p.detach().cpu().double().numpy() for name, p in network.module.named_parameters()}
    if not any(value.size for value in found.values()):
        raise UsageError(
            "This network has no weights, so its loss is one number, not a surface.", "Load another network."
        )
    return found


def filter_normalised(direction: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A direction of which each filter (row of the first dimension) is as long as the filter of the weights.

    Biases and all that has one dimension get 0 (Li 2018).

    >>> filter_normalised(np.array([[3.0, 4.0]]), np.array([[0.0, 2.0]])).round(6).tolist()
    [[1.2, 1.6]]
    """
    if weights.ndim <= 1:
        return np.zeros_like(weights)
    rows = tuple(range(1, weights.ndim))
    own, wanted = (np.sqrt(np.square(array).sum(rows, keepdims=True)) for array in (direction, weights))
    return direction * (wanted / (own + TINY))


def random_direction(weights: Mapping[str, np.ndarray], generator: np.random.Generator) -> dict[str, np.ndarray]:
    """A filter-normalised direction drawn from a normal distribution, parameter by parameter."""
    return {name: filter_normalised(generator.standard_normal(w.shape), w) for name, w in weights.items()}


def random_plane(network: Network, *, dimensions: int = 2, seed: int = 0) -> Plane:
    """Filter-normalised random directions (Li 2018): 1 along one is as far as the weights themselves are long."""
    weights, generator = weights_of(network), np.random.default_rng(seed)
    return Plane(
        tuple(random_direction(weights, generator) for _ in range(dimensions)),
        f"filter-normalised random direction{'s' if dimensions > 1 else ''}, seed {seed}; biases and norms stay",
    )


def trajectory_plane(network: Network, states: Sequence[Mapping[str, Any]], *, dimensions: int = 2) -> Plane:
    """The principal components of a trajectory of weights, from the network's own; lengths are those of the weights.

    `states` are mappings of parameter names to arrays or tensors, in order (what was `Step.weights`, or a state
    dict). The components are those of the differences to the network's weights, about their mean (Li 2018, section 7).

    Raises UsageError for fewer than `dimensions` + 1 states, states of another shape, or ones that do not move enough.
    """
    weights = weights_of(network)
    if len(states) <= dimensions:
        raise UsageError(
            f"{len(states)} points of a trajectory span no {dimensions} directions.",
            f"Record at least {dimensions + 1} steps.",
        )
    own = _flat(weights)
    moved = np.stack([_flat(_fitting(weights, state)) for state in states]) - own
    if not np.isfinite(moved).all():
        raise UsageError("The trajectory holds weights that are not numbers.", "Take the steps before that.")
    centred = moved - moved.mean(0)
    # Few steps of many weights: the small matrix steps × steps has the same components.
    values, vectors = np.linalg.eigh(centred @ centred.T)
    values, vectors = values[::-1].clip(0), vectors[:, ::-1]
    if values[dimensions - 1] <= 1e-18 * max(values.sum(), 1e-300) or values[dimensions - 1] <= 0:
        raise UsageError(
            f"The trajectory does not move in {dimensions} direction{'s' if dimensions > 1 else ''}.",
            "Record more steps, or look along one direction only.",
        )
    components = (vectors[:, :dimensions] / np.sqrt(values[:dimensions])).T @ centred
    for component in components:  # the sign is free: the last moves end towards +
        component *= -1 if (moved[0] @ component) > 0 else 1
    path = moved @ components.T
    if dimensions == 1:
        path = np.hstack([path, np.zeros_like(path)])
    return Plane(
        tuple(_shaped(weights, component) for component in components),
        f"principal component{'s' if dimensions > 1 else ''} of {len(states)} steps of training",
        path,
        values[:dimensions] / values.sum(),
    )


def between_plane(network: Network, other: Network, *, dimensions: int = 2, seed: int = 0) -> Plane:
    """x leads from the network (0) straight to the other (1); y is a filter-normalised random direction.

    The statistics of batch norms go along x too, so that 1 is the other network as it is.
    Raises UsageError when the two have not the same parameters.
    """
    weights = weights_of(network)
    given = dict(other.module.named_parameters())
    theirs = _fitting(weights, given)
    if more_there := sorted(set(given) - set(weights)):
        raise UsageError(f"The other network also has {more_there[0]!r}.", "Compare networks of the same architecture.")
    across = {name: theirs[name] - weights[name] for name in weights}
    own = _statistics(network.module)
    there = _fitting(own, dict(other.module.named_buffers()))
    buffers = {name: there[name] - own[name] for name in own if not np.array_equal(there[name], own[name])}
    generator = np.random.default_rng(seed)
    more = tuple(random_direction(weights, generator) for _ in range(dimensions - 1))
    named = f"the straight line to {other.name or 'the other network'}"
    named += f"; y filter-normalised random, seed {seed}" if more else ""
    return Plane((across, *more), named, buffers=buffers)


def _statistics(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: b.detach().cpu().double().numpy() for name, b in module.named_buffers() if b.is_floating_point()}


def _fitting(weights: Mapping[str, np.ndarray], state: Mapping[str, Any]) -> dict[str, np.ndarray]:
    found = {}
    for name, own in weights.items():
        if name not in state:
            raise UsageError(f"The other weights have no {name!r}.", "Compare networks of the same architecture.")
        value = state[name]
        value = value.detach().cpu().double().numpy() if hasattr(value, "detach") else np.asarray(value, np.float64)
        if value.shape != own.shape:
            raise UsageError(
                f"{name!r} is {_size(own)} here and {_size(value)} there.", "Compare networks of the same architecture."
            )
        found[name] = value
    return found


def _size(array: np.ndarray) -> str:
    return " × ".join(map(str, array.shape)) or "one number"


def _flat(weights: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([value.ravel() for value in weights.values()])


def _shaped(weights: Mapping[str, np.ndarray], flat: np.ndarray) -> dict[str, np.ndarray]:
    ends = np.cumsum([value.size for value in weights.values()])
    parts = np.split(flat, ends[:-1])
    return {name: part.reshape(value.shape) for (name, value), part in zip(weights.items(), parts, strict=True)}


# ── The loss at points of a plane ──


def subset(data: Dataset, limit: int, seed: int = 0) -> tuple[Dataset, str]:
    """All of the data (limit 0 or more than there are), or `limit` drawn at random, and words that say which."""
    if not limit or limit >= len(data):
        return data, f"all {len(data)} of {data.name}"
    chosen = np.sort(np.random.default_rng(seed).permutation(len(data))[:limit])
    return data.take(chosen), f"{limit} of the {len(data)} of {data.name}, drawn with seed {seed}"


class Landscape:
    """The exact mean loss of a network on data anywhere on a plane; the network itself is never touched.

    Chains of dense layers are worked out many points at once, in float32: the first layer's weighted sums are
    θx + x·(δx) + y·(ηx), of which the three products are computed once. Others are run point by point, in the
    network's own precision, with batch norms and dropout as in use (eval). Losses are added up in float64.
    """

    def __init__(self, network: Network, data: Dataset, plane: Plane, *, images: int = 256) -> None:
        import torch

        self.network, self.plane = network, plane
        self.weights = weights_of(network)
        self.inputs = network.encode(data.images)
        self.labels = torch.as_tensor(np.asarray(data.labels, dtype=np.int64))
        flags = [part.training for part in network.module.modules()]
        network.module.eval()
        try:
            with torch.no_grad():
                # Labels and outputs that do not fit are refused here.
                total = 0.0
                for inputs, labels in self._batches(images):
                    output = network.module(inputs)
                    if not hasattr(output, "ndim") or output.ndim != 2:
                        raise DataError("This network puts out no row of numbers for each input.", "Use a classifier.")
                    total += float(mean_loss(network.loss, output, labels).double()) * len(labels)
                self.centre = total / len(self.labels)  # of the network itself, run as it is
                first = network.module(self.inputs[:8])
        finally:
            for part, flag in zip(network.module.modules(), flags, strict=True):
                part.training = flag
        self._chain = _chain_of(network, self.inputs[:8], first)
        self._images = images
        self._precise = first.dtype == torch.float64
        self._sums: list[torch.Tensor] | None = None
        self._copy: Any = None

    @property
    def batched(self) -> bool:
        """Whether many points are worked out at once."""
        return self._chain is not None

    @property
    def about(self) -> str:
        """How the losses are computed, and what stays as it is."""
        said = "batched products in float32" if self.batched else "one forward pass a point, in the network's precision"
        norms = sum("BatchNorm" in type(part).__name__ for part in self.network.module.modules())
        if norms:
            where = "go along x" if self.plane.buffers else "stay those of the network"
            said += f"; the statistics of its {norms} batch norm{'s' if norms > 1 else ''} {where}"
        return said

    def at(self, points: Any) -> np.ndarray:
        """The mean loss at each of the points (n × 2, or n × directions), as float64."""
        return np.concatenate(list(self.stream(points)) or [np.zeros(0)])

    def stream(self, points: Any) -> Iterator[np.ndarray]:
        """The same, as they come: the losses of the first points, of the next, and so on."""
        points = np.asarray(points, np.float64).reshape(-1, np.shape(points)[-1] if np.ndim(points) > 1 else 1)
        points = points[:, : len(self.plane.directions)]
        if points.shape[1] < len(self.plane.directions):
            points = np.hstack([points, np.zeros((len(points), len(self.plane.directions) - points.shape[1]))])
        yield from self._many(points) if self.batched else self._one_by_one(points)

    def _batches(self, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for begin in range(0, len(self.labels), size):
            yield self.inputs[begin : begin + size], self.labels[begin : begin + size]

    def _one_by_one(self, points: np.ndarray) -> Iterator[np.ndarray]:
        import torch

        if self._copy is None:
            self._copy = copy.deepcopy(self.network.module).eval()
        parameters = dict(self._copy.named_parameters())
        moves = [
            (
                parameter.data,
                torch.as_tensor(self.weights[name]),
                [torch.as_tensor(direction[name]) for direction in self.plane.directions if direction[name].any()],
                [i for i, direction in enumerate(self.plane.directions) if direction[name].any()],
            )
            for name, parameter in parameters.items()
        ]
        own, buffers = _statistics(self.network.module), dict(self._copy.named_buffers())
        for name, move in self.plane.buffers.items():
            moves.append((buffers[name], torch.as_tensor(own[name]), [torch.as_tensor(move)], [0]))
        for point in points:
            total = 0.0
            with torch.no_grad():
                for target, own, directions, which in moves:
                    if directions:
                        target.copy_(sum((point[i] * d for i, d in zip(which, directions, strict=True)), own))
                for inputs, labels in self._batches(self._images):
                    total += float(mean_loss(self.network.loss, self._copy(inputs), labels).double()) * len(labels)
            yield np.array([total / len(self.labels)])

    def _many(self, points: np.ndarray) -> Iterator[np.ndarray]:
        import torch

        assert self._chain is not None
        chain, count = self._chain, len(self.labels)
        factors = torch.as_tensor(np.hstack([np.ones((len(points), 1)), points]), dtype=torch.float32)
        widest = max(link.width for link in chain.links)
        images = max(1, min(count, IMAGES, CELLS // widest))
        size = max(1, min(POINTS, CELLS // (widest * images)))
        kept = (1 + points.shape[1]) * chain.links[0].width * count <= KEPT
        with torch.no_grad():
            if kept and self._sums is None:
                self._sums = [self._first(begin, images) for begin in range(0, count, images)]
            layers = [self._stacked(link) for link in chain.links]
            for begin in range(0, len(points), size):
                mine = factors[begin : begin + size]
                moved = [None, *(self._moved(layer, mine) for layer in layers[1:])]
                total = torch.zeros(len(mine), dtype=torch.float64)
                for part, place in enumerate(range(0, count, images)):
                    sums = self._sums[part] if kept and self._sums is not None else self._first(place, images)
                    labels = self.labels[place : place + images]
                    values = (mine @ sums).view(len(mine), chain.links[0].width, len(labels))
                    for i, link in enumerate(chain.links):
                        if i:
                            weight, bias = moved[i]  # type: ignore[misc]
                            values = weight @ values if bias is None else torch.baddbmm(bias, weight, values)
                        for activation in link.after:
                            values = getattr(torch, activation + "_")(values)
                    total += _losses(self.network.loss, values, labels)
                losses = (total / count).numpy()
                beyond = ~np.isfinite(losses)
                if beyond.any() and self._precise:  # float32 ran out: the network's own float64 may still hold it
                    again = points[begin : begin + size][beyond]
                    losses[beyond] = np.concatenate(list(self._one_by_one(again)))
                yield losses

    def _stacked(self, link: _Link) -> list[tuple[torch.Tensor, tuple[int, ...]] | None]:
        """Of a layer's weight and bias: the network's and each direction's, one a row."""
        import torch

        made: list[tuple[torch.Tensor, tuple[int, ...]] | None] = []
        for name in (link.weight, link.bias):
            if not name:
                made.append(None)
                continue
            rows = [self.weights[name], *(direction[name] for direction in self.plane.directions)]
            made.append((torch.as_tensor(np.stack([row.ravel() for row in rows])).float(), rows[0].shape))
        return made

    def _moved(self, layer: list[Any], factors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        weight, bias = layer
        wide = (factors @ weight[0]).view(len(factors), *weight[1])
        return wide, None if bias is None else (factors @ bias[0]).view(len(factors), -1, 1)

    def _first(self, begin: int, images: int) -> torch.Tensor:
        """The first layer's weighted sums of some images, (1 + directions) × (units · images)."""
        assert self._chain is not None
        given = self._chain.before(self.inputs[begin : begin + images]).float().T.contiguous()
        weight, bias = self._stacked(self._chain.links[0])
        assert weight is not None
        sums = weight[0].view(-1, *weight[1]) @ given
        if bias is not None:
            sums += bias[0][:, :, None]
        return sums.reshape(len(sums), -1).contiguous()


def _losses(name: str, values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The summed loss of each point, from outputs points × outputs × images; `values` may be overwritten."""
    wanted = ideal(values[0].T, labels).T
    if name == "squared":
        parts = values.sub_(wanted).square_()
        # Added up in float64; within one output of one image block float32 is exact enough (its sums are in pairs).
        return parts.sum(2).double().sum(1)
    given = (values * wanted).sum(1)
    return (values.logsumexp(1) - given).double().sum(1)


@dataclass(frozen=True, slots=True)
class _Link:
    """A dense layer: names of its parameters, its outputs, and the activations that follow."""

    weight: str
    bias: str
    width: int
    after: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Chain:
    links: tuple[_Link, ...]
    before: Any  # what happens to the inputs before the first dense layer


def _chain_of(network: Network, inputs: torch.Tensor, output: torch.Tensor) -> _Chain | None:
    """The network as dense layers and activations one after the other, or None when it is anything else."""
    import torch
    from torch import nn

    parts = _leaves(network.module)
    if parts is None or network.loss not in LOSSES or output.dtype not in (torch.float32, torch.float64):
        return None
    links: list[_Link] = []
    flatten, names = False, {id(p): name for name, p in network.module.named_parameters()}
    for part in parts:
        kind = type(part)
        if kind is nn.Flatten and part.start_dim == 1 and part.end_dim == -1:
            flatten = True
        elif kind is nn.Linear:
            bias = "" if part.bias is None else names[id(part.bias)]
            links.append(_Link(names[id(part.weight)], bias, part.out_features, ()))
        elif kind.__name__ in _SMOOTH and kind.__module__.startswith("torch.nn"):
            if not links:
                return None
            last = links[-1]
            links[-1] = _Link(last.weight, last.bias, last.width, (*last.after, kind.__name__.lower()))
        elif kind is not nn.Identity and kind.__name__ != "Dropout":
            return None
    if not links or (inputs.ndim != 2 and not flatten):
        return None
    chain = _Chain(tuple(links), lambda given: given.flatten(1))
    # Read right? The same numbers must come out as the module itself gives.
    values = chain.before(inputs).double()
    state = dict(network.module.named_parameters())
    with torch.no_grad():
        for link in links:
            values = values @ state[link.weight].double().T
            values = values + state[link.bias].double() if link.bias else values
            for activation in link.after:
                values = getattr(torch, activation)(values)
    right = values.shape == output.shape and torch.allclose(values, output.double(), rtol=1e-3, atol=1e-4)
    return chain if right else None


def _leaves(module: Any) -> list[Any] | None:
    """The parts of nested plain sequences in order; None when something else decides how they are run."""
    from torch import nn

    if any(getattr(module, f"_{kind}_hooks") for kind in ("forward", "forward_pre")):
        return None
    if type(module) is not nn.Sequential:
        return [module] if not list(module.children()) else None
    found: list[Any] = []
    for child in module:
        inner = _leaves(child)
        if inner is None:
            return None
        found += inner
    return found


# ── Coarse first ──


@dataclass(frozen=True, slots=True, eq=False)
class SurfaceStep:
    """The surface so far. `loss` is y × x on the finest grid that is complete; `done` of `total` points are computed.

    Before the coarsest grid is complete, `known` (y × x) tells which of its points are; the others are NaN.
    """

    x: np.ndarray
    y: np.ndarray
    loss: np.ndarray
    known: np.ndarray
    done: int
    total: int
    last: bool = False


def coarse_to_fine(size: int, least: int = 5) -> list[np.ndarray]:
    """Which of `size` places belong to each finer grid; every grid holds the places of the one before.

    >>> [len(places) for places in coarse_to_fine(41)]
    [6, 11, 21, 41]
    """
    stride = 1
    while (size - 1) // (2 * stride) >= least:
        stride *= 2
    grids = []
    while stride:
        grids.append(np.unique(np.append(np.arange(0, size, stride), size - 1)))
        stride //= 2
    return grids


def surface_steps(
    landscape: Landscape, x: np.ndarray, y: np.ndarray, *, every: float = 0.5
) -> Generator[SurfaceStep, None, None]:
    """The surface over x and y, coarse first: 6 × 6, 11 × 11, 21 × 21, then all; no point is computed twice.

    A step comes after each grid, and every so many seconds in between; stop by leaving the loop.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    loss, known = np.full((len(y), len(x)), np.nan), np.zeros((len(y), len(x)), bool)
    across, down = coarse_to_fine(len(x)), coarse_to_fine(len(y))
    levels = max(len(across), len(down))
    across = across + across[-1:] * (levels - len(across))
    down = down + down[-1:] * (levels - len(down))
    shown = np.ix_(down[0], across[0])
    last_time = time.monotonic()

    def step(last: bool = False) -> SurfaceStep:
        at_y, at_x = shown[0].ravel(), shown[1].ravel()
        return SurfaceStep(x[at_x], y[at_y], loss[shown].copy(), known[shown].copy(), int(known.sum()), loss.size, last)

    for level in range(levels):
        grid = np.ix_(down[level], across[level])
        rows, columns = (index.ravel() for index in np.broadcast_arrays(*grid))
        new = ~known[rows, columns]
        rows, columns = rows[new], columns[new]
        place = 0
        for losses in landscape.stream(np.stack([x[columns], y[rows]], 1)) if len(rows) else ():
            at = slice(place, place + len(losses))
            loss[rows[at], columns[at]] = losses
            known[rows[at], columns[at]] = True
            place += len(losses)
            if place < len(rows) and time.monotonic() - last_time >= every:
                yield step()
                last_time = time.monotonic()
        shown = grid
        yield step(level == levels - 1)
        last_time = time.monotonic()


def surface(landscape: Landscape, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The losses over all of x and y at once, y × x."""
    across, down = np.meshgrid(np.asarray(x, np.float64), np.asarray(y, np.float64))
    return landscape.at(np.stack([across.ravel(), down.ravel()], 1)).reshape(len(down), -1)


# ── Curvature ──


@dataclass(frozen=True, slots=True, eq=False)
class Curvature:
    """Extreme eigenvalues of the Hessian with their residuals ‖Hv − λv‖, and how many products it took."""

    largest: np.ndarray  # descending
    smallest: float
    residuals: np.ndarray  # of the largest, then of the smallest
    directions: np.ndarray  # eigenvectors, one a row, in the order of the residuals
    products: int
    history: np.ndarray = field(default_factory=lambda: np.zeros(0))  # the largest after each product


def hessian_product(network: Network, data: Dataset, *, images: int = 256) -> tuple[Any, int]:
    """A function v → Hv (float64 arrays), H the Hessian of the mean loss in all parameters, and their count.

    Worked out in float64 on copies of the weights, in use (eval): gradient of the gradient's product with v.
    """
    import torch

    weights = weights_of(network)
    module = copy.deepcopy(network.module).double().eval()
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    parameters = list(module.parameters())
    inputs = network.encode(data.images)
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    labels = torch.as_tensor(np.asarray(data.labels, dtype=np.int64))

    def product(v: np.ndarray) -> np.ndarray:
        parts = [torch.as_tensor(value) for value in _shaped(weights, np.asarray(v, np.float64)).values()]
        total = [torch.zeros_like(p) for p in parameters]
        with torch.enable_grad():
            for begin in range(0, len(labels), images):
                mine = labels[begin : begin + images]
                loss = mean_loss(network.loss, module(inputs[begin : begin + images]), mine) * len(mine) / len(labels)
                first = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
                along = torch.stack([(g * part).sum() for g, part in zip(first, parts, strict=True)]).sum()
                if along.requires_grad:
                    second = torch.autograd.grad(along, parameters, materialize_grads=True)
                    for sums, more in zip(total, second, strict=True):
                        sums += more
        return torch.cat([sums.reshape(-1) for sums in total]).numpy()

    return product, sum(value.size for value in weights.values())


def lanczos(
    product: Any, size: int, *, count: int = 3, iterations: int = 100, tolerance: float = 1e-6, seed: int = 0
) -> Curvature:
    """The `count` largest eigenvalues of a symmetric product v → Hv and its smallest, by Lanczos (all vectors kept
    at right angles); it stops as soon as their residuals are below `tolerance` of the largest magnitude.

    >>> found = lanczos(lambda v: np.array([5.0, 1.0, -2.0]) * v, 3, count=2)
    >>> found.largest.round(6).tolist(), round(found.smallest, 6)
    ([5.0, 1.0], -2.0)
    """
    generator = np.random.default_rng(seed)
    iterations, count = min(iterations, size), min(count, size)
    basis, images = np.zeros((iterations, size)), np.zeros((iterations, 0))
    alpha, beta = np.zeros(iterations), np.zeros(iterations)
    vector = generator.standard_normal(size)
    vector /= np.linalg.norm(vector)
    history: list[float] = []
    done, scale = 0, 0.0
    values, vectors = np.zeros(0), images
    for k in range(iterations):
        basis[k] = vector
        after = np.asarray(product(vector), np.float64)
        if not np.isfinite(after).all():
            raise UsageError("The curvature here is not a number.", "Look at weights and data with a finite loss.")
        alpha[k] = after @ vector
        known = basis[: k + 1]
        for _ in range(2):  # twice is enough (Parlett)
            after = after - known.T @ (known @ after)
        beta[k] = np.linalg.norm(after)
        done = k + 1
        values, vectors = np.linalg.eigh(np.diag(alpha[:done]) + np.diag(beta[:k], 1) + np.diag(beta[:k], -1))
        history.append(float(values[-1]))
        scale = float(np.abs(values).max())
        wanted = [*range(done - 1, max(done - 1 - count, -1), -1), 0]
        enough = done > count and beta[k] * np.abs(vectors[-1, wanted]).max() <= tolerance * max(scale, 1e-300)
        broken = beta[k] <= 1e-12 * max(scale, 1e-300)
        if done == size or (enough and not broken):
            break
        if broken:  # everything that this start can reach is found: go on from a fresh one at right angles
            beta[k] = 0.0
            after = generator.standard_normal(size)
            for _ in range(2):
                after = after - known.T @ (known @ after)
            if scale == 0.0 and done > count:
                break
            vector = after / np.linalg.norm(after)
            continue
        vector = after / beta[k]
    wanted = [*range(done - 1, max(done - 1 - count, -1), -1), 0]
    directions = vectors[:, wanted].T @ basis[:done]
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    residuals = np.array([np.linalg.norm(product(v) - values[i] * v) for i, v in zip(wanted, directions, strict=True)])
    return Curvature(
        values[wanted[:-1]], float(values[0]), residuals, directions, done + len(wanted), np.array(history)
    )
