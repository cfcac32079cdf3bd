"""train(): an iterator of Steps. The caller's loop is the callback; what it sends back changes the settings."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .errors import NetworkError, UnknownName, UsageError
from .losses import chosen, mean_loss
from .types import Dataset, Network, Step, Trouble

if TYPE_CHECKING:
    import torch

EXPLODED = 1_000.0  # a loss this many times the first one is called exploding
PACES = ("epoch", "update")
SCHEDULES = ("constant", "cosine", "step", "warmup")
WARM = 0.1  # share of the training over which "warmup" rises
ONE_WEIGHT = "one_weight_at_a_time"


@dataclass(frozen=True, slots=True)
class Settings:
    """How to train. All may be changed between steps by sending a mapping of the new values to the iterator.

    lr: the learning rate; for one weight at a time the hop is lr × slope.
    batch: images an update; `gradient_descent` and one weight at a time always use all of them.
    schedule: "constant"; "cosine" (down to 0 over the epochs); "step" (a tenth of the rate after half of the epochs, a
        hundredth after three quarters); "warmup" (up from 0 over the first tenth, then down along a cosine).
    smoothing: label smoothing: this share of what is wanted is spread evenly over all classes.
    shift, rotate, scale: largest random shift in pixels, rotation in degrees and relative change of size that a
        training image gets each time it is shown; 0 for none.
    average: decay of an exponential moving average of the weights, which the network ends with; 0 for none.
    validation: share of the training images kept aside, by the seed: never trained on, measured at each epoch.
    patience: stop when the loss on those has not fallen for so many epochs, and end with the weights that had the
        lowest (early stopping); 0 for never.
    pace: a Step after every "epoch" or after every "update" (a batch, or one weight).
    evaluate: measure loss and accuracy on all images every so many updates; 0 for at the end of each epoch.
    """

    optimizer: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    smoothing: float = 0.0
    epochs: int = 30
    batch: int = 16
    seed: int = 0
    schedule: str = "constant"
    shift: float = 0.0
    rotate: float = 0.0
    scale: float = 0.0
    average: float = 0.0
    validation: float = 0.0
    patience: int = 0
    pace: str = "epoch"
    evaluate: int = 0

    def __post_init__(self) -> None:
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
                raise UsageError(
                    f"{name} is {value!r}; it must lie from {low:g} to {high:g}.", "Choose a value in between."
                )
        for name in ("epochs", "batch", "seed", "evaluate", "patience"):
            if getattr(self, name) != int(getattr(self, name)):
                raise UsageError(f"{name} is {getattr(self, name)!r}.", "Give a whole number.")
        for name, allowed in (("pace", PACES), ("schedule", SCHEDULES)):
            if getattr(self, name) not in allowed:
                raise UnknownName(name, getattr(self, name), allowed)
        if self.patience and not self.validation:
            raise UsageError(
                "Early stopping needs images that are not trained on.", "Set validation, say to 0.15, or patience to 0."
            )
        if self.patience and self.average:
            raise UsageError(
                "Early stopping and averaging both decide with which weights the network ends.",
                "Set patience or average to 0.",
            )

    def changed(self, **values: Any) -> Settings:
        """These settings with some values replaced. Raises UnknownName for a setting that does not exist."""
        for name in values:
            if name not in self.__dataclass_fields__:
                raise UnknownName("setting", name, self.__dataclass_fields__)
        return replace(self, **values)


_RANGES = (
    ("lr", 0, 1e6), ("momentum", 0, 0.9999), ("weight_decay", 0, 10), ("smoothing", 0, 0.9), ("epochs", 1, 1_000_000),
    ("batch", 1, 1_000_000), ("seed", 0, 2**31), ("shift", 0, 8), ("rotate", 0, 180), ("scale", 0, 0.9),
    ("average", 0, 0.99999), ("validation", 0, 0.9), ("patience", 0, 1_000_000), ("evaluate", 0, 1_000_000_000),
)  # fmt: skip


def train(
    network: Network,
    data: Dataset,
    *,
    test: Dataset | None = None,
    record: tuple[Literal["weights", "gradients"], ...] = (),
    start: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Generator[Step, Mapping[str, Any] | None, None]:
    """Train `network` in place on `data`, yielding a Step at each pace; stop by leaving the loop.

    The first Step has index 0 and shows the untrained network. `settings` are the fields of Settings;
    `iterator.send({"lr": 0.05})` changes them from the next update on. `start` is a mapping from an earlier
    `Step.capture()`: training goes on exactly as it would have. The same seed gives the same weights to the bit.
    A loss that is not a number or explodes ends the run with the last good weights and a Step that says why.

    Raises UsageError for settings out of range, DataError when the data do not fit the network.

    >>> import neuralmine as nm
    >>> net, data = nm.load("64-10", trained=False), nm.datasets.load("digits")
    >>> losses = [step.metrics["loss"] for step in nm.train(net, data, optimizer="sgd", lr=0.1, epochs=2)]
    >>> len(losses), losses[-1] < losses[0]
    (3, True)
    """
    _check_record(record)
    run = _Run(network, data, test, tuple(record), Settings().changed(**settings))
    if start is not None:
        run.restore(start)
    return run.steps()


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread inside: in tiny layers several would wait for each other longer than they work."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _check_record(record: tuple[str, ...]) -> None:
    for name in record:
        if name not in ("weights", "gradients"):
            raise UnknownName("recording", name, ("weights", "gradients"))


@dataclass(eq=False)
class _Run:
    """The state of one training run; `steps` is its life."""

    network: Network
    data: Dataset
    test: Dataset | None
    record: tuple[str, ...]
    settings: Settings
    index: int = 0  # updates made
    epoch: int = 0  # epochs finished
    seen: int = 0  # images of this epoch already used
    first_loss: float = 0.0
    resumed: bool = False  # a resumed run has shown its first step already
    optimizer: Any = None
    averaged: dict[str, torch.Tensor] = field(default_factory=dict)
    good: dict[str, torch.Tensor] = field(default_factory=dict)
    best: dict[str, torch.Tensor] = field(default_factory=dict)  # the weights that early stopping would end with
    best_loss: float = math.inf
    best_epoch: int = 0
    detail: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        import torch

        if not any(True for _ in self.network.module.parameters()):
            raise NetworkError("This network has no weights, so there is nothing to train.", "Load another network.")
        aside = None
        if self.settings.validation:
            self.data, aside = kept_aside(self.data, self.settings.validation, self.settings.seed)
        self.inputs = self.network.encode(self.data.images)
        self.labels = torch.as_tensor(np.asarray(self.data.labels, dtype=np.int64))
        module = self.network.module
        flags = [(part, part.training) for part in module.modules()]
        with torch.no_grad():
            # Labels and outputs that do not fit are refused here, before the caller's first step; in eval mode, or
            # batch normalisation would count these images twice.
            mean_loss(self.network.loss, module.eval()(self.inputs), self.labels)
        for part, flag in flags:
            part.training = flag
        self.measured = {"": (self.inputs, self.labels)}
        for name, part in (("validation_", aside), ("test_", self.test)):
            if part is not None:
                labels = torch.as_tensor(np.asarray(part.labels, dtype=np.int64))
                self.measured[name] = (self.network.encode(part.images), labels)

    def steps(self) -> Generator[Step, Mapping[str, Any] | None, None]:
        module = self.network.module
        flags = {name: part.training for name, part in module.named_modules()}
        try:
            change = None
            if not self.resumed:
                metrics = self.measure()
                self.first_loss = metrics["loss"]
                trouble = _not_finite(metrics["loss"])
                change = yield self.step(metrics, trouble)
                if trouble:
                    return
            self.apply(change)
            if self.optimizer is None:
                self.make_optimizer()
            self.keep_good()
            while self.epoch < self.settings.epochs:
                batch_loss = self.update()
                trouble = _not_finite(batch_loss) or _exploded(batch_loss, self.first_loss)
                if trouble:
                    module.load_state_dict(self.good)
                    yield self.step(self.measure(), trouble, last=True)
                    return
                ended = self.seen >= len(self.data)
                if ended:
                    self.epoch, self.seen = self.epoch + 1, 0
                last = self.epoch >= self.settings.epochs
                if last and self.averaged:
                    module.load_state_dict({**module.state_dict(), **self.averaged})
                every = self.settings.evaluate
                if not (ended or self.settings.pace == "update" or (every and self.index % every == 0)):
                    continue
                metrics = {"batch_loss": batch_loss, "lr": self.rate()}
                if ended or (every and self.index % every == 0):
                    metrics |= self.measure()
                    trouble = _not_finite(metrics["loss"])
                    if trouble:
                        module.load_state_dict(self.good)
                        yield self.step(self.measure(), trouble, last=True)
                        return
                    self.keep_good()
                stopped = ended and self.settings.patience > 0 and self.early(metrics, last)
                self.apply((yield self.step(metrics, _dead(metrics), last=last or stopped)))
                if stopped:
                    return
        finally:
            for name, part in module.named_modules():
                part.training = flags[name]

    def early(self, metrics: dict[str, float], last: bool) -> bool:
        """Early stopping at the end of an epoch: keep the best weights, and end with them when it is time."""
        if metrics["validation_loss"] < self.best_loss:
            self.best_loss, self.best_epoch = metrics["validation_loss"], self.epoch
            self.best = {name: tensor.detach().clone() for name, tensor in self.network.module.state_dict().items()}
        stopped = self.epoch - self.best_epoch >= self.settings.patience
        if last or stopped:
            self.network.module.load_state_dict(self.best)
            metrics |= self.measure()
        metrics["best_epoch"] = self.best_epoch
        return stopped

    def step(self, metrics: Mapping[str, float], trouble: tuple[Trouble, ...] = (), last: bool = False) -> Step:
        module = self.network.module
        weights, gradients = {}, {}
        if "weights" in self.record:
            weights = {name: p.detach().cpu().numpy().copy() for name, p in module.named_parameters()}
        if "gradients" in self.record:
            gradients = {n: p.grad.cpu().numpy().copy() for n, p in module.named_parameters() if p.grad is not None}
        last = last or any(t.stops for t in trouble)
        epoch = self.epoch + self.seen / len(self.data)
        return Step(self.index, epoch, metrics, self.capture, weights, gradients, trouble, last, self.detail)

    def update(self) -> float:
        """One batch, or one weight (a whole sweep of them at the pace of epochs). Returns the loss before it."""
        if self.settings.optimizer == ONE_WEIGHT:
            return self.update_one_weight()
        import torch

        module, count = self.network.module, len(self.data)
        size = count if self.settings.optimizer == "gradient_descent" else min(self.settings.batch, count)
        which = self.order()[self.seen : self.seen + size]
        inputs, labels = self.inputs[which], self.labels[which]
        inputs = self.augmented(inputs)
        module.train()
        reseed_dropout(module, self.settings.seed, self.index)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        self.optimizer.zero_grad()
        try:
            output = module(inputs)
        except ValueError as error:  # a last batch of one image has no spread to normalise by
            raise UsageError(f"A batch of {len(which)} cannot be trained on: {error}", "Change batch.") from error
        loss = mean_loss(self.network.loss, output, labels, self.settings.smoothing)
        value = loss.item()
        if np.isfinite(value):
            loss.backward()
            self.optimizer.step()
            if self.settings.average:
                with torch.no_grad():
                    self.update_average()
        self.index += 1
        self.seen += len(which)
        return value

    def update_one_weight(self) -> float:
        optimizer = self.optimizer
        optimizer.param_groups[0]["lr"] = self.rate()
        if self.settings.pace == "epoch" and self.seen == 0:
            moved = optimizer.sweep()
            self.index += optimizer.count
            self.seen, self.detail = len(self.data), {}
            return float(moved)
        record = optimizer.step()
        self.index += 1
        self.detail = {
            name: getattr(record, name)
            for name in ("name", "index", "slope", "hops", "old_weight", "new_weight", "old_loss", "new_loss")
        }
        # An epoch is a sweep over all weights; `seen` counts images, so it moves in proportion.
        done = optimizer.param_groups[0]["cursor"] or optimizer.count
        self.seen = round(done * len(self.data) / optimizer.count)
        return float(record.new_loss)

    def order(self) -> np.ndarray:
        """The images of this epoch in their order: it depends on the seed and the epoch alone."""
        if self._order_of != self.epoch:
            generator = np.random.default_rng([self.settings.seed, self.epoch])
            self._order, self._order_of = generator.permutation(len(self.data)), self.epoch
        return self._order

    _order_of: int = -1
    _order: Any = None

    def augmented(self, inputs: torch.Tensor) -> torch.Tensor:
        wanted = self.settings
        if not (wanted.shift or wanted.rotate or wanted.scale):
            return inputs
        generator = np.random.default_rng([wanted.seed, self.index, 1])
        return warp(inputs, wanted.shift, wanted.rotate, wanted.scale, generator)

    def rate(self) -> float:
        lr, schedule, epochs = self.settings.lr, self.settings.schedule, self.settings.epochs
        done = min((self.epoch + self.seen / len(self.data)) / epochs, 1.0)
        if schedule == "constant":
            return lr
        if schedule == "step":
            return lr * (1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01)
        if schedule == "warmup":
            ahead = done + min(self.settings.batch, len(self.data)) / len(self.data) / epochs  # the first is not 0
            if ahead < WARM:
                return lr * ahead / WARM
            done = max(done - WARM, 0.0) / (1 - WARM)
        return lr * 0.5 * (1 + math.cos(math.pi * done))

    def update_average(self) -> None:
        decay = min(self.settings.average, (1 + self.index) / (10 + self.index))  # a short memory at first
        for name, parameter in self.network.module.named_parameters():
            kept = self.averaged.setdefault(name, parameter.detach().clone())
            kept.lerp_(parameter.detach(), 1 - decay)

    def apply(self, change: Mapping[str, Any] | None) -> None:
        if not change:
            return
        before, self.settings = self.settings, self.settings.changed(**change)
        if self.settings.validation != before.validation:
            raise UsageError("The images kept aside cannot change on the way.", "Set validation before the training.")
        if (before.optimizer, before.momentum, before.weight_decay) != (
            self.settings.optimizer, self.settings.momentum, self.settings.weight_decay,
        ):  # fmt: skip
            self.make_optimizer()

    def make_optimizer(self) -> None:
        from . import optimizers

        s, module = self.settings, self.network.module
        if s.optimizer == ONE_WEIGHT:
            self.optimizer = optimizers.OneWeightAtATime(
                module, self.inputs, self.labels, loss=self.network.loss, rate=s.lr
            )
            return
        options: dict[str, Any] = {"weight_decay": s.weight_decay} if s.weight_decay else {}
        if s.momentum:
            options["momentum"] = s.momentum
        self.optimizer = optimizers.make(s.optimizer, module.parameters(), s.lr, **options)

    def measure(self) -> dict[str, float]:
        """Loss and accuracy on all training images, on those kept aside, and on the test part."""
        import torch

        module = self.network.module
        module.eval()
        with torch.no_grad():
            metrics: dict[str, float] = {}
            for name, (inputs, labels) in self.measured.items():
                output = module(inputs)
                metrics[f"{name}loss"] = float(mean_loss(self.network.loss, output, labels))
                metrics[f"{name or 'train_'}accuracy"] = float((chosen(output) == labels).double().mean())
                if not name:
                    metrics["dead_outputs"] = float(len(dead_outputs(output, labels)))
        return metrics

    def keep_good(self) -> None:
        self.good = {name: tensor.detach().clone() for name, tensor in self.network.module.state_dict().items()}

    def capture(self) -> dict[str, Any]:
        """All that is needed to go on from exactly here."""
        import copy

        return {
            "index": self.index,
            "epoch": self.epoch,
            "seen": self.seen,
            "first_loss": self.first_loss,
            "settings": {name: getattr(self.settings, name) for name in self.settings.__dataclass_fields__},
            "weights": {name: t.detach().clone() for name, t in self.network.module.state_dict().items()},
            "optimizer": copy.deepcopy(self.optimizer.state_dict()) if self.optimizer is not None else {},
            "averaged": {name: t.clone() for name, t in self.averaged.items()},
            "best": {name: t.clone() for name, t in self.best.items()},
            "best_loss": self.best_loss,
            "best_epoch": self.best_epoch,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.index, self.epoch, self.seen = state["index"], state["epoch"], state["seen"]
        self.first_loss, self.resumed = state["first_loss"], True
        self.network.module.load_state_dict(state["weights"])
        self.averaged = {name: t.clone() for name, t in state["averaged"].items()}
        # A run recorded before there was early stopping says nothing of it.
        self.best = {name: t.clone() for name, t in state.get("best", {}).items()}
        self.best_loss, self.best_epoch = state.get("best_loss", math.inf), state.get("best_epoch", 0)
        if state["optimizer"] and state["settings"]["optimizer"] == self.settings.optimizer:
            self.make_optimizer()
            self.optimizer.load_state_dict(state["optimizer"])


def reseed_dropout(module: torch.nn.Module, seed: int, index: int) -> None:
    """Make the random choices of every layer with a `generator` of its own depend on seed and update alone."""
    for place, part in enumerate(module.modules()):
        generator = getattr(part, "generator", None)
        if generator is not None:
            generator.manual_seed(hash((seed, index, place)) & 0x7FFF_FFFF)


def kept_aside(data: Dataset, share: float, seed: int) -> tuple[Dataset, Dataset]:
    """The images to train on, and the share kept aside for validation, drawn by the seed."""
    order = np.random.default_rng([seed, 2]).permutation(len(data))
    count = round(share * len(data))
    if not 0 < count < len(data):
        raise UsageError(
            f"{share:g} of {len(data)} images is {count}.", "Change validation so that both parts hold some."
        )
    return data.take(np.sort(order[count:])), data.take(np.sort(order[:count]))


def warp(
    images: torch.Tensor, shift: float, rotate: float, scale: float, generator: np.random.Generator
) -> torch.Tensor:
    """Each image (b × h × w) rotated, scaled and shifted at random about its centre, bilinear, empty outside.

    shift is in pixels, rotate in degrees, scale relative; each image draws uniformly from ± those.
    Raises UsageError for inputs that are not images.
    """
    import torch

    if images.ndim != 3:
        raise UsageError(
            f"Shifting and rotating need images (b × h × w), not shape {tuple(images.shape)}.",
            "Set shift, rotate and scale to 0, or give the data their picture shape.",
        )
    count, height, width = images.shape
    draw = generator.uniform(-1, 1, (4, count))
    angle, size = np.deg2rad(rotate) * draw[0], 1 + scale * draw[1]
    cosine, sine = np.cos(angle) / size, np.sin(angle) / size
    across, down = shift * draw[2] * 2 / width, shift * draw[3] * 2 / height
    # A pixel is as wide as it is high, but affine_grid measures in half image sizes: hence the ratios.
    rows = np.stack([cosine, -sine * height / width, across, sine * width / height, cosine, down], 1)
    theta = torch.as_tensor(rows.reshape(count, 2, 3), dtype=images.dtype)
    grid = torch.nn.functional.affine_grid(theta, [count, 1, height, width], align_corners=False)
    return torch.nn.functional.grid_sample(images[:, None], grid, align_corners=False)[:, 0]


def dead_outputs(output: torch.Tensor, labels: torch.Tensor) -> list[int]:
    """Outputs that no image makes the brightest although some image should."""
    if output.shape[1] == 1:
        return []
    said, wanted = set(chosen(output).tolist()), set(labels.tolist())
    return sorted(wanted - said)


def _dead(metrics: Mapping[str, float]) -> tuple[Trouble, ...]:
    dead = int(metrics.get("dead_outputs", 0))
    if not dead:
        return ()
    return (
        Trouble(
            "dead outputs",
            f"{dead} output{'s are' if dead > 1 else ' is'} never the brightest on any training image.",
            "A large step can push an output's weighted sum so far below 0 that the sigmoid is flat there; its slope "
            "is then nearly 0 and no step brings it back. Early in training it can also just not have begun.",
            "If it lasts beyond a few epochs, rewind and lower the learning rate, or use the cross-entropy loss.",
            stops=False,
        ),
    )


def _not_finite(loss: float) -> tuple[Trouble, ...]:
    if np.isfinite(loss):
        return ()
    return (
        Trouble(
            "not a number",
            f"The loss became {loss}. Training stopped; the network has the last good weights.",
            "Weights or inputs grew beyond what a number can hold, or were not numbers to begin with.",
            "Lower the learning rate, check the data for NaN, or rewind to before it happened.",
            stops=True,
        ),
    )


def _exploded(loss: float, first: float) -> tuple[Trouble, ...]:
    if loss <= EXPLODED * max(first, 1e-3):
        return ()
    return (
        Trouble(
            "exploding loss",
            f"The loss rose to {loss:.3g}, from {first:.3g} at the start. Training stopped with the last good weights.",
            "Each step overshoots the bottom and lands higher up on the other side.",
            "Lower the learning rate (a tenth is a good first try) or the momentum.",
            stops=True,
        ),
    )
