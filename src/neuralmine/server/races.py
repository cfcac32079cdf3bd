"""Races of optimizers in the background: watched step by step, their rates changed on the way, then their landscape."""

from __future__ import annotations

import copy
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..errors import NeuralmineError, UnknownName, UsageError
from ..races import Plane, RaceStep, entrants, race_steps
from ..surfaces import Landscape, SurfaceStep, surface_steps
from ..surfaces import Plane as Directions
from ..types import Dataset, Network
from . import resolve
from .requests import RaceRequest

OFTEN = 0.15  # seconds between two reports
MARGIN, FINE = 0.2, 41  # around the paths, and the places of the surface along each side


@dataclass
class Race:
    """One race: its losses so far, the paths in their plane, and the surface there."""

    name: str
    asked: RaceRequest
    names: tuple[str, ...]
    status: str = "sweeping"  # sweeping, racing, mapping, done, stopped or failed
    message: str = ""
    losses: dict[str, list[float]] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    out: dict[str, str] = field(default_factory=dict)
    images: dict[str, int] = field(default_factory=dict)
    plane: Plane | None = None
    surface: SurfaceStep | None = None
    orders: dict[str, float] = field(default_factory=dict)
    version: int = 0
    stop: threading.Event = field(default_factory=threading.Event)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def report(self) -> dict[str, Any]:
        """All that is drawn but the surface, which is fetched by itself."""
        paths = {} if self.plane is None else {
            name: np.where(np.isfinite(self.plane.paths[i]), self.plane.paths[i], 0)[: len(self.losses[name])].tolist()
            for i, name in enumerate(self.names)
        }  # fmt: skip
        return {
            "id": self.name, "status": self.status, "message": self.message, "names": self.names, "rates": self.rates,
            "losses": {name: [_plain(v) for v in values] for name, values in self.losses.items()}, "out": self.out,
            "images": self.images, "paths": paths, "explained": None if self.plane is None else self.plane.explained,
            "surface": None if self.surface is None else [self.surface.done, self.surface.total], "version": self.version,
        }  # fmt: skip

    def tell(self, **news: Any) -> None:
        with self.changed:
            for name, value in news.items():
                setattr(self, name, value)
            self.version += 1
            self.changed.notify_all()


_races: dict[str, Race] = {}


def begin(asked: RaceRequest) -> Race:
    """Begin a race. Raises UnknownName and UsageError for what cannot be raced."""
    for old in list(_races.values()):  # one page races one at a time; what is still running makes way
        old.stop.set()
    while len(_races) > 8:
        _races.pop(next(iter(_races)))
    race = Race(uuid.uuid4().hex[:12], asked, entrants(asked.optimizers))
    _races[race.name] = race
    threading.Thread(target=_life, args=(race,), name="race", daemon=True).start()
    return race


def of(name: str) -> Race:
    """The race of that id. Raises UnknownName."""
    if name not in _races:
        raise UnknownName("race", name, _races)
    return _races[name]


def control(race: Race, stop: bool, rates: Mapping[str, float]) -> None:
    """Stop a race, or change rates from its next step on. Raises UsageError for a rate that cannot be."""
    for name, rate in rates.items():
        if name not in race.names:
            raise UnknownName("optimizer of this race", name, race.names)
        if not (np.isfinite(rate) and rate > 0):
            raise UsageError(f"The rate of {name} is {rate}.", "Give a number above 0.")
    if rates:
        race.orders = {**race.orders, **rates}
    if stop:
        race.stop.set()


def updates(race: Race) -> Iterator[dict[str, Any]]:
    """The race's reports as they change; ends with it."""
    seen = -1
    while True:
        with race.changed:
            race.changed.wait_for(lambda seen=seen: race.version != seen, timeout=15)
            seen = race.version
        yield race.report()
        if race.status in ("done", "stopped", "failed"):
            return


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _life(race: Race) -> None:
    try:
        network, data = resolve.network(race.asked.network), resolve.data(race.asked.data)
        last = _raced(race, network, data)
        if last is None or race.stop.is_set():
            race.tell(status="stopped")
            return
        race.tell(status="mapping")
        for step in _mapped(race, network, data):
            race.tell(surface=step)
            if race.stop.is_set():
                race.tell(status="stopped")
                return
        race.tell(status="done")
    except NeuralmineError as error:
        race.tell(status="failed", message=str(error))
    except Exception as error:  # whatever went wrong belongs on the page, not into a thread's silence
        race.tell(status="failed", message=f"{type(error).__name__}: {error}")


def _raced(race: Race, network: Network, data: Dataset) -> RaceStep | None:
    asked = race.asked
    steps = race_steps(
        network, data, optimizers=asked.optimizers, steps=asked.steps, batch=asked.batch, lr=asked.lr, limit=asked.limit,
        seed=asked.seed, start=asked.start,
    )  # fmt: skip
    race.losses = {name: [] for name in race.names}
    step, shown, orders = next(steps), 0.0, {}
    while True:
        for name in race.names:
            race.losses[name].append(step.losses[name])
        if step.last or time.monotonic() - shown > OFTEN:
            shown = time.monotonic()
            plane = step.plane() if step.index > 1 else None
            race.tell(
                status="racing", rates=dict(step.rates), out=dict(step.out), images=dict(step.images), plane=plane
            )  # fmt: skip
        if step.last:
            return step
        if race.stop.is_set():
            return None
        orders, race.orders = race.orders, {}
        step = steps.send(orders or None)


def _mapped(race: Race, network: Network, data: Dataset) -> Iterator[SurfaceStep]:
    """The exact loss on the plane of the paths, coarse first."""
    import torch

    plane = race.plane
    assert plane is not None
    module = copy.deepcopy(network.module)
    parameters = dict(module.named_parameters())
    sizes = np.cumsum([p.numel() for p in parameters.values()])[:-1]

    def shaped(flat: np.ndarray) -> dict[str, np.ndarray]:
        parts = np.split(flat, sizes)
        return {name: part.reshape(tuple(p.shape)) for (name, p), part in zip(parameters.items(), parts, strict=True)}

    with torch.no_grad():
        for name, value in shaped(plane.centre).items():
            parameters[name].copy_(torch.as_tensor(value))
    directions = Directions(tuple(shaped(axis) for axis in plane.axes), "the plane of the paths")
    if race.asked.limit:
        from ..races import chosen_images

        data = data.take(chosen_images(len(data), race.asked.limit, race.asked.seed))
    landscape = Landscape(replace(network, module=module), data, directions)
    points = plane.paths.reshape(-1, 2)
    points = points[np.isfinite(points).all(1)]
    low, high = points.min(0), points.max(0)
    room = MARGIN * np.maximum(high - low, 1e-6)
    yield from surface_steps(
        landscape, np.linspace(low[0] - room[0], high[0] + room[0], FINE), np.linspace(low[1] - room[1], high[1] + room[1], FINE)
    )  # fmt: skip
