"""Races: several optimizers from one start, on the same batches, watched step by step."""

from __future__ import annotations

import copy
import math
import re
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .errors import NeuralmineError, UnknownName, UsageError
from .losses import mean_loss
from .training import EXPLODED, ONE_WEIGHT, reseed_dropout
from .types import Dataset, Network

if TYPE_CHECKING:
    import torch

DEFAULT = "sgd,momentum,adam,lbfgs"
FEWEST, MOST = 2, 8
# What our names mean: the class in torch.optim and its options; any other class goes by its own name.
ENTRANTS: dict[str, tuple[str, dict[str, Any]]] = {
    ONE_WEIGHT: (ONE_WEIGHT, {}),
    "gradient_descent": ("gradient_descent", {}),
    "sgd": ("sgd", {}),
    "momentum": ("sgd", {"momentum": 0.9}),
    "nesterov": ("sgd", {"momentum": 0.9, "nesterov": True}),
    "adagrad": ("adagrad", {}),
    "rmsprop": ("rmsprop", {}),
    "adam": ("adam", {}),
    "adamw": ("adamw", {}),
    "lbfgs": ("lbfgs", {"max_iter": 1, "line_search_fn": "strong_wolfe"}),
}
WHOLE = (ONE_WEIGHT, "gradient_descent", "lbfgs")  # these need all the data at every step
GRID = tuple(10.0 ** (k / 2) for k in range(-8, 5))  # 0.0001 to 100, two a decade
GRID_OF = {ONE_WEIGHT: (32.0,)}  # it halves hops that overshoot, so no rate diverges
RULE = "the lowest exact loss after a quarter of the steps, among the rates 0.0001 to 100, two a decade"
MOST_BYTES = 2**31  # all points of all paths are kept until the plane is known
_SMALL_WORK = 30_000_000  # multiplications in one pass over all images
_CHUNK = 4096  # images at a time, for the exact loss
_chance = threading.RLock()  # all threads share torch's one generator


@dataclass(frozen=True, slots=True, eq=False)
class Plane:
    """The plane that holds most of the paths: point = centre + paths[…, 0] × axes[0] + paths[…, 1] × axes[1] + rest.

    `centre` is a flat vector of all parameters in the module's order, `axes` 2 × that, orthonormal; `paths` is
    optimizers × points × 2 and `off` optimizers × points (distance from the plane), NaN after an optimizer fell out;
    `explained` is the plane's share of the points' variance, NaN where there is one point only.
    """

    centre: np.ndarray
    axes: np.ndarray
    paths: np.ndarray
    off: np.ndarray
    explained: float


@dataclass(frozen=True, slots=True, eq=False)
class RaceStep:
    """All optimizers after so many steps. Losses are exact, on all images of the race; NaN for one that fell out.

    `batch_losses` are of the batch just used, before the step. `out` says why each fell out, `images` how many images
    each has sent forwards and backwards so far, `moved` how far each is from the start. `plane()` lays the paths so
    far into one plane; `weights(name)` is the flat vector of all parameters at this moment.
    """

    index: int
    losses: Mapping[str, float]
    batch_losses: Mapping[str, float]
    rates: Mapping[str, float]
    out: Mapping[str, str]
    images: Mapping[str, int]
    moved: Mapping[str, float]
    plane: Callable[[], Plane]
    weights: Callable[[str], np.ndarray]
    last: bool = False


def race_steps(
    network: Network,
    data: Dataset,
    *,
    optimizers: str | Sequence[str] = DEFAULT,
    steps: int = 60,
    batch: int = 32,
    lr: str | float | Mapping[str, float] = "",
    limit: int = 0,
    seed: int = 0,
    start: Literal["own", "random"] | np.ndarray = "own",
) -> Generator[RaceStep, Mapping[str, float] | None, None]:
    """Race optimizers from one start on the same batches, yielding a RaceStep after every step (the first is the start).

    Two to eight optimizers, by the names of ENTRANTS or of any class in torch.optim; each has a copy of the network,
    which itself stays as it is. `lr` is empty (each rate is swept by RULE before the start;
    one weight at a time takes 32 and halves it where that overshoots), one number for all,
    "adam=0.01,sgd=0.5" (the others are swept), or a mapping. `iterator.send({"adam": 0.01})` changes rates from
    the next step on. Batches go through a shuffle of the images anew each epoch, as `train` does with the same seed;
    gradient descent, L-BFGS (one iteration with a strong-Wolfe line search a step) and one weight at a time (a
    step moves every weight once) use all images at every step. `start` "random" makes the weights anew from the seed;
    a flat vector of all parameters, in the module's order, is a start of one's own.
    One whose loss is not a number or a thousand times the first falls out and the race goes on.

    Raises UnknownName for an optimizer that does not exist; UsageError for fewer than two or more than eight, a data
    set smaller than a batch, a network without weights to train, a loss that is no number at the start.

    >>> import neuralmine as nm
    >>> net, data = nm.load("64-10", trained=False), nm.datasets.load("digits")
    >>> race = race_steps(net, data, optimizers="sgd,adam", steps=5, lr="sgd=1,adam=0.01", limit=200)
    >>> next(race).index, race.send({"adam": 0.02}).rates["adam"]
    (0, 0.02)
    """
    race = Race.of(network, data, optimizers, steps, batch, lr, limit, seed, start)
    return race.steps()


@dataclass(eq=False)
class Race:
    """What a race is run on: the start, the images and the rules. `steps` runs it, as often as one likes."""

    module: torch.nn.Module  # the start; never trained itself
    loss: str
    inputs: torch.Tensor
    labels: torch.Tensor
    names: tuple[str, ...]
    count: int  # steps
    batch: int
    lr: Mapping[str, float]  # given rates; the others are swept
    seed: int
    first: float = 0.0

    @classmethod
    def of(
        cls,
        network: Network,
        data: Dataset,
        optimizers: str | Sequence[str],
        steps: int,
        batch: int,
        lr: str | float | Mapping[str, float],
        limit: int,
        seed: int,
        start: str | np.ndarray,
    ) -> Race:
        import torch

        names = entrants(optimizers)
        rates = given_rates(lr, names)
        if steps < 1 or batch < 1 or limit < 0:
            raise UsageError(
                f"steps is {steps}, batch {batch}, limit {limit}.", "Give at least one step and a batch of at least 1."
            )
        if isinstance(start, str) and start not in ("own", "random"):
            raise UnknownName("start", start, ("own", "random"))
        which = chosen_images(len(data), limit, seed)
        if len(which) < batch:
            raise UsageError(
                f"There are {len(which)} images, fewer than a batch of {batch}.",
                f"Set batch to {len(which)} or less" + (", or raise limit." if len(which) < len(data) else "."),
            )
        if not any(p.requires_grad for p in network.module.parameters()):
            raise UsageError(
                "This network has no weights that can be trained, so there is nothing to race.",
                "Load a network with weights, or unfreeze some (parameter.requires_grad_(True)).",
            )
        module = copy.deepcopy(network.module)
        for parameter in module.parameters():
            parameter.grad = None
        if not isinstance(start, str):
            lay(module, start)
        elif start == "random":
            with _own_chance(seed):
                begin_anew(module)
        size = sum(p.numel() * p.element_size() for p in module.parameters())
        if size * len(names) * (steps + 1) > MOST_BYTES:
            raise UsageError(
                f"{len(names)} paths of {steps} steps through {size / 2**20:.0f} MB of weights are more than "
                f"{MOST_BYTES / 2**30:.0f} GB.",
                f"Take at most {max(MOST_BYTES // (size * len(names)) - 1, 0)} steps, or fewer optimizers.",
            )
        labels = torch.as_tensor(np.asarray(data.labels, dtype=np.int64)[which])
        race = cls(
            module, network.loss, network.encode(data.images[which]), labels, names, steps, batch, rates, seed,
        )  # fmt: skip
        race.first = race.exact(module)
        if not math.isfinite(race.first):
            raise UsageError(
                f"The loss at the start is {race.first}, so there is nowhere to go down from.",
                "Check the weights and the data for values that are not numbers, or choose start='random'.",
            )
        return race

    def exact(self, module: torch.nn.Module) -> float:
        """The loss on all images of the race, an image, in eval mode."""
        import torch

        module.eval()
        total = 0.0
        with torch.no_grad():
            for low in range(0, len(self.labels), _CHUNK):
                labels = self.labels[low : low + _CHUNK]
                total += mean_loss(self.loss, module(self.inputs[low : low + _CHUNK]), labels).item() * len(labels)
        return total / len(self.labels)

    @contextmanager
    def threads(self) -> Iterator[None]:
        """One thread for small dense nets: several would wait for each other longer than they work."""
        import torch

        before = torch.get_num_threads()
        parameters = list(self.module.parameters())
        work = sum(p.numel() for p in parameters) * len(self.labels)
        small = work <= _SMALL_WORK and all(p.ndim <= 2 for p in parameters)
        if small:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            if small:
                torch.set_num_threads(before)

    def batches(self) -> Iterator[np.ndarray]:
        """The images of each step: every epoch a new shuffle, the last batch of it may be smaller."""
        count, epoch = len(self.labels), 0
        while True:
            order = np.random.default_rng([self.seed, epoch]).permutation(count)
            for low in range(0, count, self.batch):
                yield order[low : low + self.batch]
            epoch += 1

    def rate_of(self, name: str) -> float:
        """The rate given for an optimizer, or the one that RULE finds."""
        return self.lr[name] if name in self.lr else self.swept(name)[0]

    def swept(self, name: str) -> tuple[float, dict[float, float]]:
        """The rate with the lowest exact loss after a quarter of the steps, and the loss after each rate tried."""
        losses: dict[float, float] = {}
        if name in GRID_OF and len(GRID_OF[name]) == 1:
            return GRID_OF[name][0], losses
        with self.threads():
            for rate in GRID_OF.get(name, GRID):
                runner = Runner(self, name, rate)
                for index, which in zip(range(1, max(1, self.count // 4) + 1), self.batches(), strict=False):
                    if runner.step(index, which):
                        break
                now = math.inf if runner.out else self.exact(runner.module)
                losses[rate] = now if math.isfinite(now) else math.inf
        return min(losses, key=losses.__getitem__), losses

    def steps(self) -> Generator[RaceStep, Mapping[str, float] | None, None]:
        """Run the race from the start."""
        runners = {name: Runner(self, name, self.rate_of(name)) for name in self.names}
        for runner in runners.values():
            runner.record(self.first)
        self.apply(runners, (yield self.seen(runners, 0)))
        for index, which in zip(range(1, self.count + 1), self.batches(), strict=False):
            with self.threads():
                for runner in runners.values():
                    if runner.out or runner.step(index, which):
                        continue
                    now = self.exact(runner.module)
                    if reason := self.trouble(now, runner.rate, index):
                        runner.out = reason
                    else:
                        runner.record(now)
            self.apply(runners, (yield self.seen(runners, index)))
            if all(runner.out for runner in runners.values()):
                return

    def trouble(self, loss: float, rate: float, index: int) -> str:
        """Why a run with this loss has to end, or ""."""
        if math.isfinite(loss) and loss <= EXPLODED * max(self.first, 1e-3):
            return ""
        became = f"rose from {self.first:.3g} to {loss:.3g}" if math.isfinite(loss) else f"became {loss}"
        advice = f"try {rate / 10:g}" if rate / 10 <= GRID[-1] else "give no rate, and it is swept"
        return f"fell out at step {index}: the loss {became} at a rate of {rate:g}; {advice}"

    def apply(self, runners: Mapping[str, Runner], change: Mapping[str, float] | None) -> None:
        for name, rate in (change or {}).items():
            if name not in runners:
                raise UnknownName("optimizer in this race", name, runners)
            runners[name].rate = _rate(name, rate)

    def seen(self, runners: Mapping[str, Runner], index: int) -> RaceStep:
        import torch

        here = {n: len(r.losses) == index + 1 for n, r in runners.items()}
        start = next(iter(runners.values())).points[0]
        return RaceStep(
            index,
            {n: r.losses[-1] if here[n] else math.nan for n, r in runners.items()},
            {n: r.batch_loss for n, r in runners.items()},
            {n: r.rate for n, r in runners.items()},
            {n: r.out for n, r in runners.items() if r.out},
            {n: r.images for n, r in runners.items()},
            {n: float(torch.linalg.vector_norm(r.points[-1] - start)) for n, r in runners.items()},
            lambda: plane_of([r.points[: index + 1] for r in runners.values()], index + 1),
            lambda name: runners[name].points[min(index, len(runners[name].points) - 1)].numpy().copy(),
            index == self.count or all(r.out for r in runners.values()),
        )


@dataclass(eq=False)
class Runner:
    """One optimizer in a race: its own copy of the network, the points it has been at and their exact losses."""

    race: Race
    name: str
    rate: float
    out: str = ""
    images: int = 0
    batch_loss: float = math.nan
    losses: list[float] = field(default_factory=list)
    points: list[torch.Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        from . import optimizers

        race, (known, options) = self.race, ENTRANTS.get(self.name, (self.name, {}))
        self.module = copy.deepcopy(race.module)
        if known == ONE_WEIGHT:
            options = {"inputs": race.inputs, "labels": race.labels, "loss": race.loss}
        trainable = self.module if known == ONE_WEIGHT else [p for p in self.module.parameters() if p.requires_grad]
        self.optimizer: Any = optimizers.make(known, trainable, self.rate, **options)

    def record(self, loss: float) -> None:
        self.losses.append(loss)
        self.points.append(flat(self.module))

    def step(self, index: int, which: np.ndarray) -> str:
        """One step on those images, or on all for an optimizer that needs them; why it fell out, or ""."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        whole = self.name in WHOLE or type(self.optimizer).__name__ == "LBFGS"
        try:
            if self.name == ONE_WEIGHT:
                self.batch_loss = self.optimizer.sweep()
                self.images += self.optimizer.count * len(self.race.labels)
            elif type(self.optimizer).__name__ == "LBFGS":
                self.batch_loss = float(self.optimizer.step(lambda: self.slope(index, None)))
            else:
                self.batch_loss = self.slope(index, None if whole else which).item()
                if math.isfinite(self.batch_loss):
                    self.optimizer.step()
        except NeuralmineError:
            raise
        except (RuntimeError, ValueError) as error:
            raise UsageError(
                f"{self.name} cannot train this network on {len(which)} images: {error}.",
                "Race with another optimizer, or another batch.",
            ) from error
        self.out = self.race.trouble(self.batch_loss, self.rate, index)
        return self.out

    def slope(self, index: int, which: np.ndarray | None) -> torch.Tensor:
        """The loss of those images (None for all) with its gradient in place; dropout draws the same for every one."""
        race = self.race
        inputs, labels = (race.inputs, race.labels) if which is None else (race.inputs[which], race.labels[which])
        self.module.train()
        with _own_chance(race.seed, index):
            reseed_dropout(self.module, race.seed, index)
            self.optimizer.zero_grad()
            loss = mean_loss(race.loss, self.module(inputs), labels)
            loss.backward()
        self.images += len(labels)
        return loss.detach()


def entrants(optimizers: str | Sequence[str]) -> tuple[str, ...]:
    """The names of a race's optimizers, checked. Raises UnknownName, UsageError for too few, too many or one twice."""
    import torch

    given = optimizers.split(",") if isinstance(optimizers, str) else optimizers
    lowered = [str(name).strip().lower().replace("-", "").replace(" ", "_") for name in given if str(name).strip()]
    classes = {
        name.lower()
        for name, part in vars(torch.optim).items()
        if isinstance(part, type) and issubclass(part, torch.optim.Optimizer) and part is not torch.optim.Optimizer
    }
    for name in lowered:
        if name not in ENTRANTS and name not in classes:
            raise UnknownName("optimizer", name, [*ENTRANTS, *sorted(classes - set(ENTRANTS))])
    if not FEWEST <= len(lowered) <= MOST:
        raise UsageError(
            f"A race takes {FEWEST} to {MOST} optimizers; {len(lowered)} given.",
            f"Name them with commas between: {DEFAULT}.",
        )
    if len(set(lowered)) < len(lowered):
        raise UsageError(f"{', '.join(lowered)} names one optimizer twice.", "Name each once.")
    return tuple(lowered)


def given_rates(lr: str | float | Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    """The rates that were given: for all ("0.1"), or for some ("adam=0.01,sgd=0.5").

    Raises UnknownName for a name that does not race, UsageError for what is not a rate.

    >>> given_rates("adam=0.01", ["sgd", "adam"])
    {'adam': 0.01}
    """
    if isinstance(lr, Mapping):
        pairs = list(lr.items())
    elif isinstance(lr, (int, float)) or re.fullmatch(r"[^=,]+", lr.strip()):
        pairs = [(name, lr) for name in names]
    else:
        pairs = [part.partition("=")[::2] for part in lr.split(",") if part.strip()]
    rates = {}
    for name, value in pairs:
        name = str(name).strip().lower()
        if name not in names:
            raise UnknownName("optimizer in this race", name, names)
        rates[name] = _rate(name, value)
    return rates


def _rate(name: str, value: Any) -> float:
    try:
        rate = float(value)
    except (TypeError, ValueError):
        rate = math.nan
    if not 0 <= rate < math.inf:
        raise UsageError(
            f"The learning rate of {name} is {value!r}.", "Give a number from 0 up: lr=0.1, or lr='adam=0.01,sgd=0.5'."
        )
    return rate


def chosen_images(count: int, limit: int, seed: int) -> np.ndarray:
    """The indices of at most `limit` images (0 for all), at random from the seed, in ascending order."""
    if not 0 < limit < count:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).permutation(count)[:limit])


def begin_anew(module: torch.nn.Module) -> None:
    """Give every layer its own kind of random start. Raises UsageError for a layer that cannot be started anew."""
    for name, part in module.named_modules():
        reset = getattr(part, "reset_parameters", None)
        if callable(reset):
            reset()
        elif any(True for _ in part.parameters(recurse=False)):
            raise UsageError(
                f"The layer {name!r} ({type(part).__name__}) has weights but no reset_parameters.",
                "Race from the network's own weights: start='own'.",
            )


def flat(module: torch.nn.Module) -> torch.Tensor:
    """All parameters in one row, in the module's order: a copy."""
    import torch

    return torch.cat([p.detach().reshape(-1).cpu() for p in module.parameters()])


def lay(module: torch.nn.Module, weights: np.ndarray) -> None:
    """Give a module the parameters of a flat vector. Raises UsageError when it has more or fewer."""
    import torch

    parameters = list(module.parameters())
    sizes = [p.numel() for p in parameters]
    if weights.shape != (sum(sizes),):
        raise UsageError(
            f"This start is for a network of {weights.size} weights; this one has {sum(sizes)}.",
            "Take the network it was made for, or another start.",
        )
    with torch.no_grad():
        for parameter, part in zip(parameters, np.split(weights, np.cumsum(sizes)[:-1]), strict=True):
            parameter.copy_(torch.as_tensor(part).view_as(parameter))


def plane_through_start(race: Race) -> Plane:
    """The plane that the start itself tells: x is steepest descent, y the way it turns there.

    With the slope g and the curvature H of the exact loss at the start, x is −g and y the part of H·g at a right angle
    to it: to first order, the first two steps of gradient descent lie in it. The start is its middle.
    """
    import torch

    module = copy.deepcopy(race.module).double().eval()
    inputs = race.inputs.double() if race.inputs.is_floating_point() else race.inputs
    trained = [p for p in module.parameters() if p.requires_grad]
    with torch.enable_grad():
        loss = mean_loss(race.loss, module(inputs), race.labels)
        slope = torch.autograd.grad(loss, trained, create_graph=True, materialize_grads=True)
        along = torch.stack([(g * g.detach()).sum() for g in slope]).sum()
        turn = (
            torch.autograd.grad(along, trained, materialize_grads=True)
            if along.requires_grad
            else [torch.zeros_like(p) for p in trained]
        )
    rows = np.zeros((2, sum(p.numel() for p in module.parameters())))
    for row, found in zip(rows, (slope, turn), strict=True):
        ways = dict(zip(map(id, trained), found, strict=True))
        flats = [ways.get(id(p), torch.zeros_like(p)).detach().reshape(-1) for p in module.parameters()]
        row[:] = torch.cat(flats).numpy()
    rows[0] *= -1
    axes = _orthonormal(rows, float(np.linalg.norm(rows[0])))
    for axis, row in zip(axes, rows, strict=True):  # QR leaves the sign open
        axis *= -1 if axis @ row < 0 else 1
    here = np.zeros((len(race.names), 1, 2))
    return Plane(flat(race.module).double().numpy(), axes, here, here[:, :, 0], math.nan)


def plane_of(paths: Sequence[Sequence[torch.Tensor]], points: int) -> Plane:
    """The plane through the mean of all points of all paths that keeps most of their variance (PCA).

    Each path has at most `points` points; shorter ones are filled up with NaN.
    """
    import torch

    rows = torch.stack([point for path in paths for point in path]).numpy()
    centre = rows.mean(0, dtype=np.float64)
    count, size = rows.shape
    blocks = [slice(low, low + 65536) for low in range(0, size, 65536)]
    products = np.zeros((count, count))
    for block in blocks:
        part = rows[:, block] - centre[block]
        products += part @ part.T
    _, vectors = np.linalg.eigh(products)
    axes = np.zeros((2, size))
    for block in blocks:
        axes[:, block] = vectors[:, :-3:-1].T @ (rows[:, block] - centre[block])
    axes = _orthonormal(axes, math.sqrt(max(float(np.trace(products)), 0.0)))
    flat_paths = sum(((rows[:, block] - centre[block]) @ axes[:, block].T for block in blocks), np.zeros((count, 2)))
    for k in range(2):  # an eigenvector has no sign of its own: the farthest point is on the right, or on top
        if flat_paths[np.abs(flat_paths[:, k]).argmax(), k] < 0:
            axes[k], flat_paths[:, k] = -axes[k], -flat_paths[:, k]
    total, squares = float(np.trace(products)), np.diag(products)
    off = np.sqrt(np.maximum(squares - (flat_paths**2).sum(1), 0.0))
    laid = np.full((len(paths), points, 2), np.nan)
    away = np.full((len(paths), points), np.nan)
    at = 0
    for i, path in enumerate(paths):
        laid[i, : len(path)], away[i, : len(path)] = flat_paths[at : at + len(path)], off[at : at + len(path)]
        at += len(path)
    explained = min(float((flat_paths**2).sum()) / total, 1.0) if total > 0 else 1.0
    return Plane(centre, axes, laid, away, explained)


def _orthonormal(axes: np.ndarray, scale: float) -> np.ndarray:
    """Two axes of length 1 at a right angle; one that the points do not fill is any direction."""
    generator, size = np.random.default_rng(0), axes.shape[1]
    for k in range(2):
        if not np.linalg.norm(axes[k]) > 1e-7 * scale:
            axes[k] = generator.standard_normal(size)
    made = np.linalg.qr(axes.T)[0].T
    return np.concatenate([made, np.zeros((2 - len(made), size))])  # a network of one weight has one axis


@contextmanager
def _own_chance(*seed: int) -> Iterator[None]:
    """torch's random numbers from a seed of our own, the outside's left as they were; one race at a time."""
    import torch

    with _chance:
        state = torch.get_rng_state()
        torch.manual_seed(hash(seed) & 0x7FFF_FFFF)
        try:
            yield
        finally:
            torch.set_rng_state(state)
