"""Experiments of many trainings in the background: growing data, and one ingredient at a time."""

from __future__ import annotations

import threading
import time
import uuid
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from fastapi import FastAPI, Response
from fastapi.responses import StreamingResponse

from ..errors import UnknownName, UsageError
from ..experiments import Ablation, Scaling
from ..lenses import data_scaling, training_ablation
from ..types import Finding
from . import resolve
from .answers import binary, events
from .news import News, failure
from .requests import MethodRequest

OFTEN = 0.2  # seconds between two reports


@dataclass(eq=False)
class Job(News):
    """One experiment: how far it is, what it has measured so far, and its finding in the end."""

    LAST = ("done", "stopped", "failed")

    name: str
    asked: MethodRequest
    status: str = "running"  # running, done, stopped or failed
    message: str = ""
    done: float = 0.0
    work: Ablation | Scaling | None = None
    finding: Finding | None = None
    stop: threading.Event = field(default_factory=threading.Event)

    def _report(self) -> dict[str, Any]:
        """How far it is, with the accuracies so far (a row a run or size, a column a seed; null: not yet)."""
        work = self.work
        table = None if work is None else work.accuracy if isinstance(work, Ablation) else work.accuracy.T
        return {
            "id": self.name, "kind": self.asked.kind, "status": self.status, "message": self.message, "done": self.done,
            "names": [] if work is None else list(work.names) if isinstance(work, Ablation) else [str(n) for n in work.sizes],
            "accuracy": [] if table is None else [[float(v) if np.isfinite(v) else None for v in row] for row in table],
        }  # fmt: skip


_jobs: dict[str, Job] = {}
_beginning = threading.Lock()


def begin(asked: MethodRequest) -> Job:
    """Begin an experiment; one of the same kind that is running makes way. Raises for what cannot be tried."""
    job = Job(uuid.uuid4().hex[:12], asked)
    network, data = resolve.network(asked.network), resolve.data(asked.data)
    recipe = {"optimizer": asked.optimizer, "lr": asked.lr, "batch": asked.batch}
    if asked.kind == "scaling":
        job.work = Scaling.of(
            network, data, asked.sizes, 0, asked.seeds, asked.seed, asked.test, asked.updates, **recipe
        )
    else:
        job.work = Ablation.of(
            network, data, asked.ingredients, asked.seeds, asked.seed, asked.test, asked.limit, epochs=asked.epochs,
            **recipe,
        )  # fmt: skip
    with _beginning:  # requests come in threads of their own
        for old in _jobs.values():
            old.stop.set()
        _jobs[job.name] = job
        for name in list(_jobs)[:-8]:
            del _jobs[name]
    threading.Thread(target=_life, args=(job, job.work), name="experiment", daemon=True).start()
    return job


def of(name: str) -> Job:
    """The experiment of that id. Raises UnknownName."""
    job = _jobs.get(name)
    if job is None:
        raise UnknownName("experiment", name, list(_jobs))
    return job


def stop_all() -> None:
    """End them before the process does."""
    for job in list(_jobs.values()):
        job.stop.set()


def _life(job: Job, work: Ablation | Scaling) -> None:
    shown = 0.0
    try:
        for done in work.steps():
            if job.stop.is_set():
                job.tell(status="stopped")
                return
            if time.monotonic() - shown > OFTEN:
                shown = time.monotonic()
                job.tell(done=done)
        if isinstance(work, Ablation):
            finding = replace(training_ablation.told(work), lens="training_ablation")
        else:
            finding = replace(data_scaling.told(work), lens="data_scaling")
        job.tell(status="done", done=1.0, finding=replace(finding, params=job.asked.model_dump()))
    except Exception as error:  # whatever went wrong belongs on the page, not into a thread's silence
        job.tell(status="failed", message=failure(error))


def add(app: FastAPI) -> None:
    """The routes."""

    @app.post("/api/methods")
    def begin_method(asked: MethodRequest) -> dict[str, Any]:
        """Begin an experiment of many trainings; one that is running stops."""
        return begin(asked).report()

    @app.post("/api/methods/{name}/stop")
    def stop_method(name: str) -> dict[str, Any]:
        """Stop it; what was measured stays."""
        job = of(name)
        job.stop.set()
        return job.report()

    @app.get("/api/methods/{name}/events")
    def method_events(name: str) -> StreamingResponse:
        """Its reports as they change (server-sent events)."""
        return events(of(name))

    @app.post("/api/methods/{name}/finding")
    def method_finding(name: str) -> Response:
        """What it found, as a binary frame."""
        finding = of(name).finding
        if finding is None:
            raise UsageError("This experiment has not ended.", "Wait for it, or begin another.")
        return binary(finding)
