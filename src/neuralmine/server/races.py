"""Races of optimizers in the background: watched step by step, their rates changed on the way, on a map from the start.

The map is always of one stated plane: through the start, by its slope and curvature, before the first step; then of the
paths so far, coarse; and of all paths, refined, when the race has ended.
"""

from __future__ import annotations

import copy
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from fastapi import FastAPI, Response
from fastapi.responses import StreamingResponse

from .. import races
from ..errors import UnknownName, UsageError
from ..races import Plane, RaceStep, chosen_images, entrants, lay, plane_through_start
from ..stores import starts
from ..surfaces import Landscape, SurfaceStep, surface_steps
from ..surfaces import Plane as Directions
from ..types import Dataset, Network
from . import resolve
from .answers import binary, events
from .news import News, failure
from .requests import Pace, RaceOrder, RaceRequest, RaceStart

OFTEN = 0.15  # seconds between two reports
SLOW = 0.25  # seconds a step, when it is to be followed by eye
MARGIN, FINE = 0.2, 41  # around the paths, and the places of the surface along each side
COARSE, PATIENCE = 21, 0.6  # the same before the end; no map is refined for longer while the race waits
SHARE = 4  # the race runs at least so many times as long as its maps take


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """The plane that is seen: what it is, the paths as they run over it, and as much of its surface as is known."""

    number: int
    kind: Literal["start", "paths"]
    plane: Plane
    upto: int  # the last step that it knows
    paths: dict[str, list[list[float]]]
    surface: SurfaceStep

    def report(self) -> dict[str, Any]:
        start = next(iter(self.paths.values()))[0]
        return {
            "number": self.number, "kind": self.kind, "upto": self.upto, "explained": _plain(self.plane.explained),
            "start": start, "start_off": _plain(self.plane.off[0, 0]), "done": self.surface.done,
            "total": self.surface.total,
        }  # fmt: skip


@dataclass(eq=False)
class Race(News):
    """One race: its losses so far, the paths in the plane that is seen, and the surface there."""

    LAST = ("done", "stopped", "failed")

    name: str
    asked: RaceRequest
    names: tuple[str, ...]
    about: dict[str, Any]  # where a moved start comes from
    pace: Pace
    status: str = "opening"  # opening, sweeping, racing, mapping, done, stopped or failed
    message: str = ""
    losses: dict[str, list[float]] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    out: dict[str, str] = field(default_factory=dict)
    images: dict[str, int] = field(default_factory=dict)
    changes: list[tuple[int, str, float]] = field(default_factory=list)
    seen: Seen | None = None
    orders: dict[str, float] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)

    def _report(self) -> dict[str, Any]:
        """All that is drawn but the surface, which is fetched by itself."""
        return {
            "id": self.name, "status": self.status, "message": self.message, "names": self.names, "rates": self.rates,
            "losses": {name: [_plain(v) for v in values] for name, values in self.losses.items()}, "out": self.out,
            "images": self.images, "changes": self.changes, "pace": self.pace, "start": self.asked.start,
            "about": self.about, "plane": None if self.seen is None else self.seen.report(),
            "paths": {} if self.seen is None else {name: list(path) for name, path in self.seen.paths.items()},
        }  # fmt: skip

    def add(self, step: RaceStep) -> None:
        """Take up a step: a loss of every optimizer, and where in the plane that is seen it went."""
        with self.changed:
            for name in self.names:
                self.losses[name].append(step.losses[name])
                if self.seen is not None and step.index and np.isfinite(step.losses[name]):
                    weights = step.weights(name)
                    if np.isfinite(weights).all():  # they can be beyond all numbers where a sigmoid's loss is not
                        self.seen.paths[name].append(_placed(self.seen.plane, weights))


_races: dict[str, Race] = {}
_beginning = threading.Lock()


def begin(asked: RaceRequest) -> Race:
    """Begin a race. Raises UnknownName, UsageError and DataError for what cannot be raced."""
    names = entrants(asked.optimizers)
    for _, name, rate in asked.changes:
        _checked(name, rate, names)
    about = {} if asked.start in ("own", "random") else starts.start(asked.start)[1]
    race = Race(uuid.uuid4().hex[:12], asked, names, about, asked.pace)
    with _beginning:  # requests come in threads of their own
        for old in _races.values():  # one page races one at a time; what is still running makes way
            old.stop.set()
        while len(_races) > 8:
            _races.pop(next(iter(_races)))
        _races[race.name] = race
    threading.Thread(target=_life, args=(race,), name="race", daemon=True).start()
    return race


def of(name: str) -> Race:
    """The race of that id. Raises UnknownName."""
    race = _races.get(name)
    if race is None:
        raise UnknownName("race", name, list(_races))
    return race


def control(race: Race, stop: bool, pace: Pace | None, rates: Mapping[str, float]) -> None:
    """Stop a race, let it go faster or slower, or change rates from its next step on. Raises UsageError for a bad rate."""
    for name, rate in rates.items():
        _checked(name, rate, race.names)
    with race.changed:
        race.orders = {**race.orders, **rates}
    if stop:
        race.stop.set()
    race.tell(pace=pace or race.pace)


def moved(race: Race, number: int, x: float, y: float) -> dict[str, Any]:
    """Keep the weights at a place of the plane that is seen, to start from. Raises UsageError when it is seen no more."""
    seen = race.seen
    if seen is None or seen.number != number:
        raise UsageError("Another plane is seen by now.", "Move the start on the map as it is now.")
    if not np.isfinite([x, y]).all():
        raise UsageError(f"The start cannot lie at ({x}, {y}).", "Give two finite numbers.")
    weights = seen.plane.centre + x * seen.plane.axes[0] + y * seen.plane.axes[1]
    asked = race.asked
    about = {
        "x": x, "y": y, "kind": seen.kind, "upto": seen.upto, "network": asked.network.address, "seed": asked.seed,
        "from": asked.start, "optimizers": asked.optimizers,
    }  # fmt: skip
    return {"start": starts.keep(weights, about)}


def _checked(name: str, rate: float, names: tuple[str, ...]) -> None:
    if name not in names:
        raise UnknownName("optimizer of this race", name, names)
    if not (np.isfinite(rate) and rate > 0):
        raise UsageError(f"The rate of {name} is {rate}.", "Give a number above 0.")


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _life(race: Race) -> None:
    try:
        asked, network, data = race.asked, resolve.network(race.asked.network), resolve.data(race.asked.data)
        own = asked.start if asked.start in ("own", "random") else starts.start(asked.start)[0]
        run = races.Race.of(
            network, data, asked.optimizers, asked.steps, asked.batch, asked.lr, asked.limit, asked.seed, own
        )
        if asked.limit:
            data = data.take(chosen_images(len(data), asked.limit, asked.seed))
        _look(race, network, data, "start", plane_through_start(run), 0, COARSE)
        race.tell(status="sweeping", rates=dict(run.lr))
        for name in race.names:
            if race.stop.is_set():
                break
            run.lr = {**run.lr, name: run.rate_of(name)}
            race.tell(rates=dict(run.lr))
        last = None if race.stop.is_set() else _raced(race, run, network, data)
        if last is not None:
            race.tell(status="mapping")
            if any(last.moved.values()):
                _look(race, network, data, "paths", last.plane(), last.index, FINE, np.inf)
            elif race.seen is not None:  # all fell out at the first step: there are no paths to lay a plane through
                _look(race, network, data, "start", race.seen.plane, 0, FINE, np.inf)
        race.tell(status="stopped" if race.stop.is_set() else "done")
    except Exception as error:  # whatever went wrong belongs on the page, not into a thread's silence
        race.tell(status="failed", message=failure(error))


def _raced(race: Race, run: races.Race, network: Network, data: Dataset) -> RaceStep | None:
    """Race to the end, with a map of the paths so far now and then; None when it was stopped."""
    steps = run.steps()
    step = next(steps)
    race.tell(losses={name: [] for name in race.names})
    shown, rested, work = 0.0, time.monotonic(), 0.1
    while True:
        race.add(step)
        if step.last or race.pace != "full" or time.monotonic() - shown > OFTEN:
            race.tell(status="racing", rates=dict(step.rates), out=dict(step.out), images=dict(step.images))
            shown = time.monotonic()
        if step.last:
            return step
        if step.index > 1 and time.monotonic() - rested > SHARE * work:
            began = time.monotonic()
            _look(race, network, data, "paths", step.plane(), step.index, COARSE)
            rested = time.monotonic()
            work = rested - began
        if not _waited(race):
            return None
        with race.changed:
            orders, race.orders = race.orders, {}
        orders = {name: rate for at, name, rate in race.asked.changes if at == step.index + 1} | orders
        race.changes = race.changes + [(step.index + 1, name, rate) for name, rate in orders.items()]
        step = steps.send(orders or None)


def _waited(race: Race) -> bool:
    """Keep the race's pace before its next step; False when it is stopped."""
    began = time.monotonic()

    def ready() -> bool:
        return race.stop.is_set() or race.pace == "full" or (race.pace == "slow" and time.monotonic() - began >= SLOW)

    while not ready():
        time.sleep(0.02)
    return not race.stop.is_set()


def _placed(plane: Plane, weights: np.ndarray) -> list[float]:
    return (plane.axes @ (weights - plane.centre)).tolist()


def _look(
    race: Race, network: Network, data: Dataset, kind: Literal["start", "paths"], plane: Plane, upto: int, size: int,
    patience: float = PATIENCE,
) -> None:  # fmt: skip
    """See another plane of the race: the exact loss on it, coarse first, refined for as long as patience lasts."""
    module = copy.deepcopy(network.module)
    lay(module, plane.centre)
    landscape = Landscape(replace(network, module=module), data, _directions(module, plane))
    if kind == "start":  # as far as the weights themselves are long, each way
        reach = max(float(np.linalg.norm(plane.centre)), 1e-6)
        x = y = np.linspace(-reach, reach, size)
    else:
        points = plane.paths.reshape(-1, 2)
        points = points[np.isfinite(points).all(1)]
        low, high = points.min(0), points.max(0)
        room = MARGIN * np.maximum(high - low, 1e-6)
        x, y = (np.linspace(low[k] - room[k], high[k] + room[k], size) for k in range(2))
    number, began = 1 if race.seen is None else race.seen.number + 1, time.monotonic()
    paths = {
        name: [place.tolist() for place in path if np.isfinite(place).all()]
        for name, path in zip(race.names, plane.paths, strict=True)
    }
    for step in surface_steps(landscape, x, y):
        if step.known.all():  # the plane that was seen stays until there is something to see on this one
            race.tell(seen=Seen(number, kind, plane, upto, paths, step))
        if race.stop.is_set() or (race.seen and race.seen.number == number and time.monotonic() - began > patience):
            return


def _directions(module: Any, plane: Plane) -> Directions:
    """A race's flat axes as the directions of a landscape."""
    parameters = dict(module.named_parameters())
    ends = np.cumsum([p.numel() for p in parameters.values()])[:-1]
    return Directions(
        tuple(
            {
                n: part.reshape(tuple(p.shape))
                for (n, p), part in zip(parameters.items(), np.split(axis, ends), strict=True)
            }
            for axis in plane.axes
        ),
        "the plane of a race",
    )


def add(app: FastAPI) -> None:
    """The routes."""

    @app.post("/api/races")
    def begin_race(asked: RaceRequest) -> dict[str, Any]:
        """Begin a race of optimizers; one that is running stops."""
        return begin(asked).report()

    @app.get("/api/races/{name}")
    def show_race(name: str) -> dict[str, Any]:
        """How far a race is."""
        return of(name).report()

    @app.post("/api/races/{name}/control")
    def control_race(name: str, order: RaceOrder) -> dict[str, Any]:
        """Change rates from the next step on, the pace, or stop."""
        race = of(name)
        control(race, order.stop, order.pace, order.rates)
        return race.report()

    @app.post("/api/races/{name}/start")
    def move_start(name: str, place: RaceStart) -> dict[str, Any]:
        """Keep a place of the plane that is seen as a start: its id, for the next race."""
        return moved(of(name), place.plane, place.x, place.y)

    @app.get("/api/races/{name}/events")
    def race_events(name: str) -> StreamingResponse:
        """A race's reports as they change (server-sent events)."""
        return events(of(name))

    @app.post("/api/races/{name}/surface")
    def race_surface(name: str) -> Response:
        """The loss on the plane that is seen, as fine as it is by now."""
        seen = of(name).seen
        if seen is None:
            raise UsageError("The surface is not there yet.", "It comes a moment after the race has begun.")
        step = seen.surface
        return binary(
            {
                "plane": seen.number,
                "x": step.x,
                "y": step.y,
                "loss": step.loss,
                "done": step.done,
                "total": step.total,
            }
        )
