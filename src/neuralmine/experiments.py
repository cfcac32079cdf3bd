"""Experiments that train a network many times: on growing data, and with one ingredient at a time."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import UnknownName, UsageError
from .losses import chosen, mean_loss
from .races import begin_anew
from .training import train
from .types import Dataset, Network

if TYPE_CHECKING:
    import torch

DROPOUT = 0.2
# What can be put into the plain recipe: in words, and as settings of the training (dropout and batch norm change the net).
INGREDIENTS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "cosine": ("the rate falls to 0 along a cosine", {"schedule": "cosine"}),
    "step": ("the rate falls to a tenth at half time, to a hundredth at three quarters", {"schedule": "step"}),
    "warmup": ("the rate rises for a tenth of the time, then falls along a cosine", {"schedule": "warmup"}),
    "dropout": (f"{DROPOUT:.0%} of hidden values are zeroed while training".replace("%", " %"), {}),
    "batch_norm": ("sums are brought to mean 0 and spread 1 over the batch", {}),
    "weight_decay": ("weights are drawn to 0, at 0.001", {"weight_decay": 0.001}),
    "augmentation": (
        "images shifted to 1 pixel, turned to 10°, sized to ± 10 %",
        {"shift": 1.0, "rotate": 10.0, "scale": 0.1},
    ),
    "label_smoothing": ("a tenth of the ideal is spread over all classes", {"smoothing": 0.1}),
    "weight_averaging": ("ends with a moving average of the weights, decay 0.99", {"average": 0.99}),
    "early_stopping": (
        "15 % of the training images watch; stops 5 epochs after the best",
        {"validation": 0.15, "patience": 5},
    ),
}
PLAIN, AGAIN = "plain", "plain again"
_OTHER_BATCHES = 1_000_003  # added to the seed of a second run that differs by its batches alone


@dataclass(eq=False)
class Ablation:
    """One ingredient at a time added to a plain recipe, each with the same splits, starts and batches.

    `steps` trains them all and fills `accuracy` and `loss` (runs × seeds, on the split's held-out images) and `epochs`
    (when each ended) as it goes; what was not trained yet is NaN. Run 0 is the plain recipe, run 1 the same with its
    batches in another order: what differs between those two is noise.
    """

    network: Network
    data: Dataset
    names: tuple[str, ...]
    left_out: Mapping[str, str]
    seeds: int
    seed: int
    test: float
    limit: int
    recipe: Mapping[str, Any]
    accuracy: np.ndarray = field(init=False)
    loss: np.ndarray = field(init=False)
    train_accuracy: np.ndarray = field(init=False)
    epochs: np.ndarray = field(init=False)
    train_images: int = 0
    test_images: int = 0
    broken: dict[str, str] = field(default_factory=dict)  # runs that ended early with the last good weights, and why

    def __post_init__(self) -> None:
        shape = len(self.names), self.seeds
        self.accuracy, self.loss = np.full(shape, np.nan), np.full(shape, np.nan)
        self.train_accuracy, self.epochs = np.full(shape, np.nan), np.full(shape, np.nan)
        parts = [len(part) for part in self.data.split_indices(self.test, self.seed)]
        self.train_images, self.test_images = min(parts[0], self.limit or parts[0]), parts[1]

    @classmethod
    def of(
        cls, network: Network, data: Dataset, ingredients: str, seeds: int, seed: int, test: float, limit: int,
        **recipe: Any,
    ) -> Ablation:  # fmt: skip
        """Raises UnknownName for an ingredient that does not exist, UsageError when none of them fits the network."""
        _check(network)
        asked = [name.strip() for name in ingredients.split(",") if name.strip()] or list(INGREDIENTS)
        for name in asked:
            if name not in INGREDIENTS:
                raise UnknownName("ingredient", name, INGREDIENTS)
        left_out = {name: reason for name in asked if (reason := _unfit(name, network))}
        names = [name for name in dict.fromkeys(asked) if name not in left_out]
        if not names:
            raise UsageError(
                "None of these ingredients fits this network: " + " ".join(left_out.values()), "Choose others."
            )
        return cls(network, data, (PLAIN, AGAIN, *names), left_out, seeds, seed, test, limit, recipe)

    @property
    def overlap(self) -> float:
        """Test images ÷ training images where every seed splits anew; 0 when the data come with their own split."""
        return 0.0 if self.data.test_from is not None else self.test_images / self.train_images

    def steps(self) -> Iterator[float]:
        """Train them all, seed by seed; yields the share that is done after every epoch."""
        total = len(self.names) * self.seeds
        for k in range(self.seeds):
            part, held_out = self.data.split(self.test, self.seed + k)
            part = part.take(stratified(part.labels, self.seed + k)[: self.train_images])
            start = begun(self.network.module, self.seed + k)
            for i, name in enumerate(self.names):
                settings = {**self.recipe, **(INGREDIENTS[name][1] if name in INGREDIENTS else {})}
                settings["seed"] = self.seed + k + (_OTHER_BATCHES if name == AGAIN else 0)
                done, network = k * len(self.names) + i, replace(self.network, module=_inserted(name, start))
                for step in train(network, part, **settings):
                    yield (done + min(step.epoch / self.recipe["epochs"], 1)) / total
                self.accuracy[i, k], self.loss[i, k] = judged(network, held_out)
                self.train_accuracy[i, k] = judged(network, part)[0]
                self.epochs[i, k] = step.epoch
                self.broken |= {f"{name}, seed {self.seed + k}": t.what for t in step.trouble if t.stops}
                yield (done + 1) / total


@dataclass(eq=False)
class Scaling:
    """The same network, started anew, trained on growing parts of the data, for as many updates each.

    The parts are nested and stratified: each holds the one before, and the classes in their proportions. `steps` fills
    `accuracy`, `train_accuracy` and `centroid` (seeds × sizes; the last is the nearest mean image's) as it goes.
    """

    network: Network
    data: Dataset
    sizes: np.ndarray
    seeds: int
    seed: int
    test: float
    updates: int
    recipe: Mapping[str, Any]
    accuracy: np.ndarray = field(init=False)
    train_accuracy: np.ndarray = field(init=False)
    centroid: np.ndarray = field(init=False)
    chance: float = 0.0
    test_images: int = 0
    train_images: int = 0
    broken: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = self.seeds, len(self.sizes)
        self.accuracy, self.train_accuracy, self.centroid = (np.full(shape, np.nan) for _ in range(3))
        parts = self.data.split_indices(self.test, self.seed)
        self.train_images, self.test_images = len(parts[0]), len(parts[1])
        self.chance = float(np.bincount(self.data.labels).max() / len(self.data))

    @classmethod
    def of(
        cls, network: Network, data: Dataset, sizes: int, smallest: int, seeds: int, seed: int, test: float,
        updates: int, **recipe: Any,
    ) -> Scaling:  # fmt: skip
        """Raises UsageError for too few images."""
        _check(network)
        largest = len(data.split_indices(test, seed)[0])
        least = smallest or 2 * len(data.classes)
        chosen_sizes = np.unique(np.round(np.geomspace(least, largest, sizes)).astype(int)) if least < largest else []
        if len(chosen_sizes) < 3:
            raise UsageError(
                f"Sizes from {least} to {largest} training images make no curve of three points.",
                "Give more images, or a smaller `smallest`.",
            )
        return cls(network, data, np.asarray(chosen_sizes), seeds, seed, test, updates, recipe)

    @property
    def overlap(self) -> float:
        return 0.0 if self.data.test_from is not None else self.test_images / self.train_images

    def steps(self) -> Iterator[float]:
        """Train them all, seed by seed; yields the share that is done after every epoch."""
        total = self.accuracy.size
        for k in range(self.seeds):
            part, held_out = self.data.split(self.test, self.seed + k)
            order = stratified(part.labels, self.seed + k)
            start = begun(self.network.module, self.seed + k)
            for j, size in enumerate(self.sizes):
                subset = part.take(order[:size])
                batch = min(self.recipe["batch"], int(size))
                epochs = math.ceil(self.updates / math.ceil(size / batch))
                network, done = replace(self.network, module=copy.deepcopy(start)), k * len(self.sizes) + j
                for step in train(
                    network, subset, **{**self.recipe, "batch": batch, "epochs": epochs, "seed": self.seed + k}
                ):
                    yield (done + min(step.epoch / epochs, 1)) / total
                self.accuracy[k, j] = judged(network, held_out)[0]
                self.broken |= {f"{size} images, seed {self.seed + k}": t.what for t in step.trouble if t.stops}
                self.train_accuracy[k, j] = judged(network, subset)[0]
                self.centroid[k, j] = nearest_centroid(subset, held_out)
                yield (done + 1) / total


def stratified(labels: np.ndarray, seed: int) -> np.ndarray:
    """All indices in an order, drawn by the seed, whose every beginning holds the classes in their proportions.

    >>> labels = np.repeat([0, 1], [20, 10])
    >>> np.bincount(labels[stratified(labels, 0)[:15]]).tolist()
    [10, 5]
    """
    generator, place = np.random.default_rng(seed), np.empty(len(labels))
    for name in np.unique(labels):
        mine = generator.permutation(np.flatnonzero(labels == name))
        place[mine] = (np.arange(len(mine)) + generator.random()) / len(mine)
    return np.argsort(place, kind="stable")


def begun(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    """A copy with random weights from the seed; the outside's random numbers stay as they were.

    torch's own dropout draws from the one generator all share; here it gets one of its own, so that runs are pairs.
    """
    import torch

    from .architectures.mlp import Dropout

    started = copy.deepcopy(module)
    for name in [name for name, part in started.named_modules() if type(part) is torch.nn.Dropout and name]:
        parent, _, child = name.rpartition(".")
        setattr(started.get_submodule(parent), child, Dropout(float(started.get_submodule(name).p)))  # type: ignore[arg-type]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        begin_anew(started)
    return started


def judged(network: Network, data: Dataset) -> tuple[float, float]:
    """Accuracy and mean loss on images, in eval mode."""
    import torch

    network.module.eval()
    labels = torch.as_tensor(np.asarray(data.labels, dtype=np.int64))
    with torch.no_grad():
        output = network.module(network.encode(data.images))
        return float((chosen(output) == labels).double().mean()), float(mean_loss(network.loss, output, labels))


def nearest_centroid(train_part: Dataset, test_part: Dataset) -> float:
    """How often the nearest mean image of a class is the right one: what needs no network."""
    known = np.unique(train_part.labels)
    flat = np.reshape(train_part.images, (len(train_part), -1)).astype(float)
    means = np.stack([flat[train_part.labels == name].mean(0) for name in known])
    asked = np.reshape(test_part.images, (len(test_part), -1)).astype(float)
    away = (means**2).sum(1) - 2 * asked @ means.T
    return float((known[away.argmin(1)] == test_part.labels).mean())


def _check(network: Network) -> None:
    if network.domain == "tokens":
        raise UsageError("This network reads texts; it is not trained here.", "Choose a network for labelled images.")


def _inserted(name: str, start: torch.nn.Module) -> torch.nn.Module:
    from .architectures.inserted import with_batch_norm, with_dropout

    if name == "dropout":
        return with_dropout(start, DROPOUT)
    return with_batch_norm(start) if name == "batch_norm" else copy.deepcopy(start)


def _unfit(name: str, network: Network) -> str:
    """Why an ingredient cannot be put into this network, or ""."""
    if name == "augmentation" and len(network.shape) != 2:
        return f"Images are moved as rows × columns; this network takes {network.shape}."
    try:
        _inserted(name, network.module)
    except UsageError as error:
        return error.what
    return ""
