"""Toy problems as one watches them: a small net trained in the background, drawn as its neurons' decision maps."""

from __future__ import annotations

import copy
import math
import threading
import time
import uuid
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from fastapi import FastAPI, Response
from fastapi.responses import StreamingResponse

from .. import datasets
from ..architectures import build
from ..dense import weighted_sums
from ..errors import DataError, UnknownName, UsageError
from ..lens import find, look
from ..lenses.decision_map import maps_at
from ..losses import chosen, mean_loss
from ..networks.edited import edited
from ..networks.torch_module import network_of
from ..training import train
from ..types import Dataset, Network, Source, Step
from .answers import binary, events
from .news import News, failure
from .requests import ToyOrder, ToyPicture, ToyRequest

OFTEN = 0.05  # seconds from one picture to the next while it trains
UNWATCHED = 8.0  # seconds without anybody fetching a picture, after which it pauses
BATCH = 20
MOST_UNDO = 100
# How many steps a picture, of what length, and how long each picture stands at least.
SPEEDS = {"slow": (1, "update", 0.25), "medium": (1, "epoch", OFTEN), "fast": (5, "epoch", OFTEN)}


@dataclass(eq=False)
class Toy(News):
    """One net on one toy problem. `changed` is held by whoever runs or changes the net, too."""

    REST = OFTEN / 2

    name: str
    asked: ToyRequest
    data: Dataset
    parts: tuple[np.ndarray, np.ndarray]  # the places of the training and the test points in the data
    network: Network
    reach: float  # the plane drawn goes from −reach to reach
    status: str = "paused"  # playing, paused, ended or failed
    message: str = ""
    speed: str = "medium"
    updates: int = 0
    epoch: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    orders: dict[str, Any] = field(default_factory=dict)
    past: list[np.ndarray] = field(default_factory=list)
    future: list[np.ndarray] = field(default_factory=list)
    watched: float = field(default_factory=time.monotonic)
    training: Generator[Step, Any, None] | None = None
    counted: int = 0  # the updates of this training that are in `updates` already
    turn: int = 0

    def __post_init__(self) -> None:
        self.measure()

    def _report(self) -> dict[str, Any]:
        """How far it is, small enough to be sent many times a second."""
        return {
            "id": self.name, "status": self.status, "message": self.message, "speed": self.speed,
            "updates": self.updates, "epoch": self.epoch, "undo": len(self.past),
            "redo": len(self.future), **{key: _plain(value) for key, value in self.metrics.items()},
        }  # fmt: skip

    def measure(self) -> None:
        """Loss and accuracy on both parts, as the net is now."""
        import torch

        self.network.module.eval()
        with torch.no_grad():
            for kind, part in zip(("train", "test"), self.parts, strict=True):
                labels = torch.as_tensor(self.data.labels[part])
                output = self.network.module(self.network.encode(self.data.images[part]))
                self.metrics[f"{kind}_loss"] = float(mean_loss(self.network.loss, output, labels))
                self.metrics[f"{kind}_accuracy"] = float((chosen(output) == labels).double().mean())

    def step(self, times: int, pace: str) -> None:
        """Train on: so many updates or epochs. What `training.train` does, nothing else."""
        with self.changed:
            if self.training is None:
                self.training = self._begun()
            for _ in range(times):
                orders, self.orders = self.orders, {}
                step = self.training.send({"pace": pace, "evaluate": int(pace == "update"), **orders})
                if step.last:
                    trouble = next((t for t in step.trouble if t.stops), None)
                    self.training = None
                    self.status, self.message = "ended", f"{trouble.what} {trouble.advice}" if trouble else ""
                    break
            self.updates += step.index - self.counted
            self.counted = 0 if self.training is None else step.index
            self.epoch = step.epoch
            self.measure()

    def _begun(self) -> Generator[Step, Any, None]:
        part, test = (self.data.take(which) for which in self.parts)
        started = train(
            self.network, part, test=test, epochs=1_000_000, batch=BATCH, seed=self.asked.seed, **how(self.asked)
        )
        next(started)
        self.counted = 0
        return started

    def life(self, turn: int) -> None:
        """What the thread does while it plays; a later play has a thread of its own."""
        try:
            while self.status == "playing" and self.turn == turn:
                if time.monotonic() - self.watched > UNWATCHED:
                    self.tell(status="paused", message="Paused: nobody was looking.")
                    return
                began = time.monotonic()
                times, pace, pause = SPEEDS[self.speed]
                self.step(times, pace)
                self.tell()
                with self.changed:
                    self.changed.wait_for(
                        lambda: self.status != "playing", max(0.0, pause - (time.monotonic() - began))
                    )
        except Exception as error:  # whatever went wrong belongs on the page, not into a thread's silence
            self.tell(training=None, status="failed", message=failure(error))

    def stop(self) -> None:
        """Stop for good: what trains lets go of the net."""
        with self.changed:
            if self.training is not None:
                self.training.close()
            self.training = None
            self.tell(status="paused")

    def weights(self) -> np.ndarray:
        return np.concatenate([p.detach().numpy().ravel() for p in self.network.module.parameters()])

    def put(self, weights: np.ndarray) -> None:
        """Set all weights. Raises UsageError for another number of them, DataError for what is no number."""
        import torch

        parameters = list(self.network.module.parameters())
        sizes = [p.numel() for p in parameters]
        if len(weights) != sum(sizes):
            raise UsageError(
                f"{len(weights)} weights for a net of {sum(sizes)}.", "Open the link of a net of this shape."
            )
        if not np.isfinite(weights).all():
            raise DataError("A weight is no number.", "Start again.")
        with torch.no_grad():
            for p, part in zip(parameters, np.split(weights, np.cumsum(sizes)[:-1]), strict=True):
                p.copy_(torch.as_tensor(part.reshape(tuple(p.shape))))
        self.measure()


def how(asked: ToyRequest) -> dict[str, Any]:
    """The settings of `train`: momentum is SGD with 0.9 of it."""
    name, momentum = ("sgd", 0.9) if asked.optimizer == "momentum" else (asked.optimizer, 0.0)
    return {"optimizer": name, "momentum": momentum, "lr": asked.lr}


_toys: dict[str, Toy] = {}
_beginning = threading.Lock()


def begin(asked: ToyRequest) -> Toy:
    """A net before its first step, or with the weights of a link. Raises UsageError for what cannot be made."""
    data = datasets.toy(asked.problem, points=asked.points, noise=asked.noise, seed=asked.seed)
    sizes = [2, *asked.hidden, 1]
    module = build({"name": "mlp", "sizes": sizes, "activation": asked.activation, "seed": asked.seed})
    network = network_of(
        module, shape=(2,), labels=data.classes, loss="squared", name="-".join(map(str, sizes)),
        source=Source(f"random start, seed {asked.seed}"),
    )  # fmt: skip
    reach = math.ceil(11 * float(np.abs(data.images).max())) / 10
    toy = Toy(uuid.uuid4().hex[:12], asked, data, data.split_indices(0.25, asked.seed), network, reach)
    if asked.weights is not None:
        toy.put(np.asarray(asked.weights, dtype=np.float64))
        toy.updates = asked.updates
    with _beginning:  # requests come in threads of their own
        _toys[toy.name] = toy
        old = [_toys.pop(name) for name in list(_toys)[:-8]]
    for one in old:
        one.stop()
    return toy


def stop_all() -> None:
    """Stop and forget every toy."""
    while _toys:
        _toys.popitem()[1].stop()


def of(name: str) -> Toy:
    """The toy of that id. Raises UnknownName."""
    toy = _toys.get(name)
    if toy is None:
        raise UnknownName("toy", name, list(_toys))
    return toy


def control(toy: Toy, order: ToyOrder) -> None:
    """Carry out an order. Raises UsageError for one that cannot be."""
    with toy.changed:
        toy.watched = time.monotonic()
        toy.speed = order.speed or toy.speed
        if order.do == "play" and toy.status != "playing":
            toy.status, toy.message = "playing", ""
            toy.turn += 1
            threading.Thread(target=toy.life, args=(toy.turn,), name="toy", daemon=True).start()
        elif order.do == "pause":
            toy.status = "paused"
        elif order.do == "step":
            toy.status, toy.message = "paused", ""
            toy.step(1, "update")
        elif order.do == "set":
            _set(toy, order)
        elif order.do in ("undo", "redo"):
            _back(toy, *((toy.past, toy.future) if order.do == "undo" else (toy.future, toy.past)))
        elif order.do == "change":
            given = {key: value for key in ("optimizer", "lr") if (value := getattr(order, key)) is not None}
            toy.asked = toy.asked.model_copy(update=given)
            toy.orders = how(toy.asked) if toy.training is not None else {}
        toy.tell()


def _set(toy: Toy, order: ToyOrder) -> None:
    if order.weight is None:
        raise UsageError("Set which weight?", "Give its parameter, index and value.")
    change = edited(toy.network, weights={order.weight.parameter: [(order.weight.index, order.weight.value)]})
    if order.first:
        toy.past = [*toy.past[1 - MOST_UNDO :], toy.weights()]
        toy.future = []
    toy.network.module.load_state_dict(change.module.state_dict())
    toy.measure()


def _back(toy: Toy, source: list[np.ndarray], other: list[np.ndarray]) -> None:
    if not source:
        raise UsageError("There is nothing to undo or redo.", "Move a weight first.")
    other.append(toy.weights())
    toy.put(source.pop())


def points_of(toy: Toy) -> dict[str, Any]:
    """The points, in the order in which a picture's "said" counts them."""
    return {
        "points": toy.data.images, "labels": toy.data.labels.astype(np.int32), "classes": toy.data.classes,
        "test": np.isin(np.arange(len(toy.data)), toy.parts[1]).astype(np.int8), "note": toy.data.note,
        "source": toy.data.source, "reach": toy.reach,
    }  # fmt: skip


def picture(toy: Toy, asked: ToyPicture) -> dict[str, Any]:
    """All that is drawn, of one moment: each neuron's map, its weights, what the net says of the points, one place opened."""
    import torch

    across = np.linspace(-toy.reach, toy.reach, asked.points)
    places = np.stack(np.meshgrid(across, across[::-1]), -1).reshape(-1, 2)
    with toy.changed:
        toy.watched = time.monotonic()
        maps, _ = maps_at(toy.network, places, (asked.points, asked.points))
        with torch.no_grad():
            said = toy.network.module(toy.network.encode(toy.data.images))[:, 0].numpy()
        found, _, _ = weighted_sums(toy.network, np.asarray(asked.place or (0.0, 0.0)))
        layers = [
            {
                "name": w.block,
                "maps": maps[w.block].astype(np.float32),
                "weight": w.linear.weight.detach().numpy().copy(),
                "bias": w.linear.bias.detach().numpy().copy(),
                "inputs": w.inputs.detach().numpy()[0],
                "sums": w.sums.detach().numpy()[0],
                "values": w.activations.detach().numpy()[0],
            }
            for w in found
        ]
        return {"report": toy.report(), "layers": layers, "said": said, "place": asked.place, "weights": toy.weights()}


def looked(toy: Toy, lens: str) -> Any:
    """A Finding about the net as it is, and its data. Raises UsageError for a lens that needs more."""
    if not set(find(lens).nouns) <= {"network", "data"}:
        raise UsageError(f"The lens {lens!r} needs an input.", "Choose one that takes a network and data.")
    with toy.changed:
        network = replace(toy.network, module=copy.deepcopy(toy.network.module))
    nouns = {"network": network, "data": toy.data}
    return look(lens, *(nouns[noun] for noun in find(lens).nouns))


def add(app: FastAPI) -> None:
    """The routes."""

    @app.post("/api/toys")
    def begin_toy(asked: ToyRequest) -> dict[str, Any]:
        """Put a small net before a toy problem."""
        return begin(asked).report()

    @app.post("/api/toys/{name}/control")
    def control_toy(name: str, order: ToyOrder) -> dict[str, Any]:
        """Play, pause, one step; set a weight, undo, redo; train differently from here."""
        toy = of(name)
        control(toy, order)
        return toy.report()

    @app.get("/api/toys/{name}/events")
    def toy_events(name: str) -> StreamingResponse:
        """The toy's reports as they change (server-sent events)."""
        return events(of(name))

    @app.post("/api/toys/{name}/points")
    def toy_points(name: str) -> Response:
        """The points and their classes."""
        return binary(points_of(of(name)))

    @app.post("/api/toys/{name}/picture")
    def toy_picture(name: str, asked: ToyPicture) -> Response:
        """Every neuron's decision map, the weights, and one place opened, all of one moment."""
        return binary(picture(of(name), asked))

    @app.post("/api/toys/{name}/look/{lens}")
    def toy_look(name: str, lens: str) -> Response:
        """A Finding about the net as it is now."""
        return binary(looked(of(name), lens))


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
