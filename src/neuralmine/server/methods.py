"""Experiments of many trainings in the background: growing data, and one ingredient at a time."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from fastapi import FastAPI, Response
from fastapi.responses import StreamingResponse

from ..errors import NeuralmineError, UnknownName, UsageError
from ..experiments import Ablation, Scaling
from ..lenses import data_scaling, training_ablation
from ..types import Finding
from ..wire import frame
from . import resolve
from .requests import MethodRequest

OFTEN = 0.2  # seconds between two reports


@dataclass
class Job:
    """One experiment: how far it is, what it has measured so far, and its finding in the end."""

    name: str
    asked: MethodRequest
    status: str = "running"  # running, done, stopped or failed
    message: str = ""
    done: float = 0.0
    work: Ablation | Scaling | None = None
    finding: Finding | None = None
    version: int = 0
    stop: threading.Event = field(default_factory=threading.Event)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def report(self) -> dict[str, Any]:
        """How far it is, with the accuracies so far (a row a run or size, a column a seed; null: not yet)."""
        work = self.work
        table = None if work is None else work.accuracy if isinstance(work, Ablation) else work.accuracy.T
        return {
            "id": self.name, "kind": self.asked.kind, "status": self.status, "message": self.message, "done": self.done,
            "names": [] if work is None else list(work.names) if isinstance(work, Ablation) else [str(n) for n in work.sizes],
            "accuracy": [] if table is None else [[float(v) if np.isfinite(v) else None for v in row] for row in table],
            "version": self.version,
        }  # fmt: skip

    def tell(self, **news: Any) -> None:
        with self.changed:
            for name, value in news.items():
                setattr(self, name, value)
            self.version += 1
            self.changed.notify_all()


_jobs: dict[str, Job] = {}


def begin(asked: MethodRequest) -> Job:
    """Begin an experiment; one of the same kind that is running makes way. Raises for what cannot be tried."""
    for old in list(_jobs.values()):
        old.stop.set()
    while len(_jobs) > 8:
        _jobs.pop(next(iter(_jobs)))
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
    _jobs[job.name] = job
    threading.Thread(target=_life, args=(job, job.work), name="experiment", daemon=True).start()
    return job


def of(name: str) -> Job:
    """The experiment of that id. Raises UnknownName."""
    if name not in _jobs:
        raise UnknownName("experiment", name, _jobs)
    return _jobs[name]


def stop_all() -> None:
    """End them before the process does."""
    for job in _jobs.values():
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
    except NeuralmineError as error:
        job.tell(status="failed", message=str(error))
    except Exception as error:  # whatever went wrong belongs on the page, not into a thread's silence
        job.tell(status="failed", message=f"{type(error).__name__}: {error}")


def _updates(job: Job) -> Iterator[str]:
    seen = -1
    while True:
        with job.changed:
            job.changed.wait_for(lambda seen=seen: job.version != seen, timeout=15)
            seen = job.version
        report = job.report()
        yield f"data: {json.dumps(report)}\n\n"
        if report["status"] != "running":
            return


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
        lines = _updates(of(name))
        return StreamingResponse(lines, media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    @app.post("/api/methods/{name}/finding")
    def method_finding(name: str) -> Response:
        """What it found, as a binary frame."""
        finding = of(name).finding
        if finding is None:
            raise UsageError("This experiment has not ended.", "Wait for it, or begin another.")
        return Response(frame(finding), media_type="application/octet-stream")
