"""Training in the background: one thread a run, told what to do between steps, writing every step it shows."""

from __future__ import annotations

import threading
import time
from typing import Any

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from ..architectures import build
from ..errors import NeuralmineError, UsageError
from ..networks.torch_module import network_of
from ..stores import runs, seals
from ..training import Settings, train
from ..types import Dataset, Network, Source
from . import resolve
from .answers import events
from .news import News
from .requests import ControlRequest, NetworkRequest, RunRequest

# Seconds between two steps that are shown; slow and medium show every update, fast and full every epoch.
SPEEDS = {"slow": 0.7, "medium": 0.06, "fast": 0.12, "full": 0.0}
_PACES = {"slow": "update", "medium": "update", "fast": "epoch", "full": "epoch"}

_jobs: dict[str, Job] = {}
_lock = threading.Lock()


class Job(News):
    """A run that is being trained, or could be: its thread, and the orders for it."""

    REST = 0.04  # at most 25 reports a second; what happened in between is in the history

    def __init__(self, name: str) -> None:
        super().__init__()
        self.path = runs.find(name)
        self.name = name
        self.status = "paused"  # playing, paused, ended or failed
        self.speed = "fast"
        self.steps_to_go = 0
        self.orders: dict[str, Any] = {}
        self.stopping = False
        self.latest: dict[str, Any] | None = (runs.summary(self.path))["last"]
        self.message = ""
        self.thread: threading.Thread | None = None

    def control(self, order: ControlRequest) -> None:
        """Carry out an order from the page. Raises UsageError for one that cannot be."""
        if order.do == "rewind":
            self.rewind(order.to)
            return
        Settings().changed(**order.settings)  # refuse impossible settings now, not in the thread
        with self.changed:
            if order.speed:
                self.speed = order.speed
            if order.settings:
                self.orders |= order.settings
            if order.do == "play":
                self.status, self.steps_to_go = "playing", 0
            elif order.do == "step":
                self.status, self.steps_to_go = "playing", 1
            elif order.do == "pause":
                self.status = "paused"
            elif order.do == "stop":
                self.stopping = True
            self.tell()
            if order.do in ("play", "step"):
                self.start()

    def start(self) -> None:
        if self.thread is None or not self.thread.is_alive():
            self.stopping = False
            self.thread = threading.Thread(target=self._life, name=f"run {self.name}", daemon=True)
            self.thread.start()

    def halt(self) -> None:
        """Stop the thread and wait for it; what it has shown is written."""
        self.tell(stopping=True)
        if self.thread is not None and self.thread is not threading.current_thread():
            self.thread.join(timeout=30)

    def rewind(self, to: int | None) -> None:
        """Go back to a step: what came later is forgotten and training goes on from there."""
        if to is None:
            raise UsageError("Rewind to which step?", "Give the step's number.")
        self.halt()
        network = runs.load_network(self.path, to)
        known = runs.checkpoints(self.path)
        if to not in known:
            raise UsageError(f"Step {to} was not recorded.", f"Choose one from {known[0]} to {known[-1]}.")
        del network
        runs.cut(self.path, to)
        resolve.forget(self.name)
        self.tell(status="paused", latest=runs.summary(self.path)["last"], message="")

    def _life(self) -> None:
        try:
            self._train()
        except NeuralmineError as error:
            self.tell(status="failed", message=str(error))
        except Exception as error:  # a thread that dies silently would leave the page waiting
            self.tell(status="failed", message=f"Training broke: {error}")

    def _train(self) -> None:
        said = runs.about(self.path)
        settings = runs.settings_at(self.path)
        data, test = runs.training_data(said), runs.data_parts(said)[1]
        network = runs.empty_network(self.path)
        known = runs.checkpoints(self.path)
        state = runs.state_at(self.path, known[-1]) if known else None
        self._started(said, network)
        with self.changed:
            settings, plain = self._next(settings, known[-1] if known else 0)
        training = train(network, data, test=test, start=state, **plain)
        change: dict[str, Any] | None = None
        shown = 0.0
        while True:
            try:
                step = training.send(change)
            except StopIteration:
                self._end("finished", "All epochs are done.")
                return
            change = None
            pause = SPEEDS[self.speed] - (time.monotonic() - shown)
            line = runs.record(self.path, step)
            self.tell(latest=line)
            shown = time.monotonic()
            if step.last:
                stopped = next((t for t in step.trouble if t.stops), None)
                self._end(stopped.name if stopped else "finished", stopped.what if stopped else "All epochs are done.")
                training.close()
                return
            with self.changed:
                if self.steps_to_go:
                    self.steps_to_go -= 1
                    if not self.steps_to_go:
                        self.status = "paused"
                        self.tell()
                self.changed.wait_for(lambda: self.stopping or self.status == "playing")
                if self.status == "playing" and pause > 0 and not self.stopping:
                    self.changed.wait(timeout=pause)
                if self.stopping:
                    training.close()
                    return
                settings, change = self._next(settings, step.index)

    def _next(self, settings: Settings, index: int) -> tuple[Settings, dict[str, Any]]:
        """The settings for the next update; changes are written down, so that a replay makes them too."""
        if self.orders:
            changed, self.orders = self.orders, {}
            settings = settings.changed(**changed)
            runs.append(self.path, {"index": index, "changed": changed})
        return settings, {
            **{name: getattr(settings, name) for name in Settings.__dataclass_fields__},
            **self._pacing(),
        }

    def _pacing(self) -> dict[str, Any]:
        pace = "update" if self.steps_to_go else _PACES[self.speed]
        return {"pace": pace, "evaluate": 1 if pace == "update" else 0}

    def _started(self, said: dict[str, Any], network: Network) -> None:
        start = said.get("start")
        if start and not runs.checkpoints(self.path):
            carry_over(resolve.network(NetworkRequest(address=start)), network)

    def _end(self, how: str, message: str) -> None:
        runs.append(self.path, {"ended": how, "index": self.latest["index"] if self.latest else 0})
        self.tell(status="ended", message=message)

    def settings(self) -> dict[str, Any]:
        """The settings of the next update, with the changes that still wait for it."""
        now = runs.settings_at(self.path)
        return {name: getattr(now, name) for name in Settings.__dataclass_fields__} | self.orders

    def _report(self) -> dict[str, Any]:
        return {
            "run": self.name,
            "status": self.status,
            "speed": self.speed,
            "message": self.message,
            "latest": self.latest,
        }


def carry_over(source: Network, target: Network) -> list[str]:
    """Copy the weights whose names and shapes fit; returns the names of those that did."""
    import torch

    have = dict(source.module.state_dict())
    fitting = [n for n, p in target.module.state_dict().items() if n in have and have[n].shape == p.shape]
    with torch.no_grad():
        for name, parameter in target.module.state_dict().items():
            if name in fitting:
                parameter.copy_(have[name])
    return fitting


def begin(asked: RunRequest) -> dict[str, Any]:
    """Create a run as asked and, if wanted, set it going. Raises for anything that cannot be trained, before it starts."""
    settings = Settings().changed(**asked.settings)
    data = resolve.data(asked.data.model_copy(update={"part": "train"}))
    architecture = {
        "name": "mlp",
        "sizes": [int(_size(data)), *asked.hidden, len(data.classes)],
        "activation": asked.activation,
        "output": "sigmoid" if asked.loss == "squared" else "linear",
        "bias": asked.bias,
        "seed": settings.seed,
    }
    if sum(asked.hidden) > 4096 or len(asked.hidden) > 128:
        raise UsageError(
            f"{len(asked.hidden)} hidden layers with {sum(asked.hidden)} neurons are more than the page can show.",
            "Use at most 128 layers and 4,096 neurons, or train it in Python with neuralmine.train.",
        )
    network = network_of(
        build(architecture), shape=data.shape, labels=data.classes, loss=asked.loss, source=Source("new")
    )
    given = asked.data.model_dump(exclude={"part"})
    whole = resolve.data(asked.data.model_copy(update={"part": "all", "sealed": 0.0}))
    if asked.start:
        seals.check_start(given, asked.start)
    kept = carry_over(resolve.network(NetworkRequest(address=asked.start)), network) if asked.start else []
    if asked.only is not None and not 0 <= asked.only < len(data):
        raise UsageError(f"There are training images 0 to {len(data) - 1}, not {asked.only}.", "Choose one of those.")
    said = {
        "data": given,
        **seals.parts(whole, given),
        "architecture": architecture,
        "loss": asked.loss,
        "classes": list(data.classes),
        "shape": list(data.shape),
        "settings": {name: getattr(settings, name) for name in Settings.__dataclass_fields__},
        "start": asked.start,
        "only": asked.only,
    }
    path = runs.create(said)
    job = get(path.name)
    job.control(ControlRequest(do="step" if not asked.playing else "play"))
    return {**job.report(), "kept": kept, "about": runs.about(path)}


def open_seal(name: str) -> dict[str, Any]:
    """Open a run's seal. Raises UsageError while it trains: the network must stand still."""
    job = get(name)
    with job.changed:
        if job.status == "playing":
            raise UsageError(f"The run {name} is training.", "Pause it, or wait for its end; then open the seal.")
    opened, used = seals.open_of(job.path), seals.used_by(job.path)
    return {**opened, "words": seals.words(opened, used)}


def _size(data: Dataset) -> int:
    size = 1
    for length in data.shape:
        size *= length
    return size


def get(name: str) -> Job:
    """The job of a run; one that is not being trained waits, paused."""
    with _lock:  # two requests at once must not get two jobs: both would write the run
        if name not in _jobs:
            _jobs[name] = Job(name)
        return _jobs[name]


def discard(name: str) -> None:
    """Stop a run and delete it."""
    job = get(name)
    job.halt()
    runs.discard(job.path)
    resolve.forget(name)
    _jobs.pop(name, None)


def stop_all() -> None:
    for job in list(_jobs.values()):
        job.halt()


def add(app: FastAPI) -> None:
    """The routes of the runs."""

    @app.get("/api/runs")
    def list_runs() -> list[dict[str, Any]]:
        """Every run on this machine, newest first."""
        return [{**run, "status": get(run["id"]).status} for run in seals.log()]

    @app.post("/api/runs")
    def begin_run(asked: RunRequest) -> dict[str, Any]:
        """Begin a training run."""
        return begin(asked)

    @app.get("/api/runs/{name}")
    def run_history(name: str) -> dict[str, Any]:
        """A run's settings and every recorded step, for its curves and its scrubber."""
        path = runs.find(name)
        lines = runs.events(path)
        return {
            **runs.about(path),
            **get(name).report(),
            "now": get(name).settings(),
            "steps": [line for line in lines if "metrics" in line],
            "changes": [line for line in lines if "changed" in line],
            "checkpoints": runs.checkpoints(path),
            "seal": seals.seal(path),
        }

    @app.post("/api/runs/{name}/seal")
    def open_run_seal(name: str) -> dict[str, Any]:
        """Test a run on its sealed images, once; a second time says when the first was."""
        return open_seal(name)

    @app.post("/api/runs/{name}/control")
    def control_run(name: str, order: ControlRequest) -> dict[str, Any]:
        """Play, pause, one step, change settings, rewind."""
        job = get(name)
        job.control(order)
        return job.report()

    @app.delete("/api/runs/{name}")
    def discard_run(name: str) -> dict[str, str]:
        """Stop a run and delete it."""
        discard(name)
        return {"discarded": name}

    @app.get("/api/runs/{name}/events")
    def run_events(name: str) -> StreamingResponse:
        """The run's reports as they change (server-sent events)."""
        return events(get(name))
