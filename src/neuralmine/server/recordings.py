"""The routes of the recordings, and a small real run to be recorded for somebody who has none."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from fastapi import FastAPI, Response

from ..architectures import build
from ..errors import UsageError
from ..networks.torch_module import network_of
from ..types import Source
from ..watching import watch
from . import resolve, scrubbing
from .answers import binary
from .news import failure
from .requests import CellRequest, DataRequest, InputsRequest, RecordingRequest, SheetRequest

STEPS, BATCH, RATE, TRACED = 200, 32, 0.2, 100  # of the example


class Stopped(Exception):
    """The person stopped the example; its recording says so."""


@dataclass
class Example:
    """A 64-16-10 net trained on the bundled digits while nm.watch records every step."""

    status: str = "recording"  # recording, done, stopped or failed
    message: str = ""
    address: str = ""
    done: int = 0
    stop: threading.Event = field(default_factory=threading.Event)
    begun: threading.Event = field(default_factory=threading.Event)  # there is something to open, or it failed

    def report(self) -> dict[str, Any]:
        return {
            "status": self.status, "message": self.message, "address": self.address, "done": self.done, "total": STEPS
        }  # fmt: skip


_example: Example | None = None
_thread: threading.Thread | None = None
_beginning = threading.Lock()


def record_example() -> Example:
    """Begin to record the example, or go on with the one under way."""
    global _example, _thread
    with _beginning:  # requests come in threads of their own
        if _example is None or _example.status != "recording":
            _example = Example()
            _thread = threading.Thread(target=_life, args=(_example,), name="example recording", daemon=True)
            _thread.start()
        example = _example
    example.begun.wait(60)
    return example


def stop() -> None:
    if _example is not None:
        _example.stop.set()
    if _thread is not None:
        _thread.join(timeout=30)


def _life(example: Example) -> None:
    try:
        _record(example)
        example.status = "done"
    except Stopped:
        example.status = "stopped"
    except Exception as error:  # whatever went wrong belongs on the page, not into a thread's silence
        example.status, example.message = "failed", failure(error)
    example.begun.set()


def _record(example: Example) -> None:
    import torch

    train, test = (resolve.data(DataRequest(part=part)) for part in ("train", "test"))
    module = build({"name": "mlp", "sizes": [64, 16, 10], "activation": "relu", "output": "linear"})
    network = network_of(
        module,
        shape=train.shape,
        labels=train.classes,
        loss="cross_entropy",
        source=Source("the example"),
        name="64-16-10",
    )
    images, labels = network.encode(train.images), torch.as_tensor(np.asarray(train.labels, dtype=np.int64))
    optimizer = torch.optim.SGD(module.parameters(), lr=RATE)
    draw = np.random.default_rng(0)
    with watch(
        network, every=1, trace=test.images[:TRACED], labels=np.asarray(test.labels[:TRACED]), optimizer=optimizer
    ) as run:
        assert run.path is not None
        example.address = run.path.name
        example.begun.set()
        for index in range(1, STEPS + 1):
            which = draw.choice(len(train), BATCH, replace=False)
            optimizer.zero_grad()
            output = module(images[which])
            loss = torch.nn.functional.cross_entropy(output, labels[which])
            loss.backward()
            optimizer.step()
            run.step(loss=loss, accuracy=(output.argmax(1) == labels[which]).double().mean())
            example.done = index
            if example.stop.is_set():
                raise Stopped(f"by hand after step {index}")


def opened(address: str) -> dict[str, Any]:
    """What a recording is, its steps, and every metric's curve."""
    film = scrubbing.film(address)
    steps = film.steps()
    metrics = {}
    for name, (at, values) in film.metrics().items():
        some_at, some = scrubbing.thinned(at, values)
        metrics[name] = {"steps": some_at.astype(np.float64), "values": some, "all": len(at)}
    labels = film.labels()
    inputs = film.inputs()
    return {
        "address": film.address, "path": str(film.path.resolve()), **film.about(), "steps": np.array(steps, np.int32),
        "metrics": metrics, "labels": np.zeros(0, np.int32) if labels is None else labels.astype(np.int32),
        "inputs": 0 if inputs is None else len(inputs),
    }  # fmt: skip


def add(app: FastAPI) -> None:
    """The routes."""

    @app.get("/api/recordings")
    def list_recordings() -> list[dict[str, Any]]:
        """Every recording and training run on this machine, newest first."""
        return scrubbing.listed()

    @app.post("/api/recordings/open")
    def open_recording(asked: RecordingRequest) -> Response:
        """What it is, its steps and its curves."""
        return binary(opened(asked.address))

    @app.post("/api/recordings/figures")
    def figures(asked: RecordingRequest) -> Response:
        """Figures of every tensor at every step, and each input's predicted class, as far as they are read."""
        return binary(scrubbing.measured(asked.address).report())

    @app.post("/api/recordings/sheet")
    def sheet(asked: SheetRequest) -> Response:
        """A part of a tensor at a step, as rows and columns, with the histogram of all of it."""
        return binary(
            scrubbing.sheet(
                asked.address, asked.step, asked.name, asked.entry, asked.change, asked.row, asked.column
            )
        )  # fmt: skip

    @app.post("/api/recordings/cell")
    def cell(asked: CellRequest) -> Response:
        """One number of a tensor over all recorded steps."""
        return binary(scrubbing.cell(asked.address, asked.step, asked.name, asked.index))

    @app.post("/api/recordings/inputs")
    def inputs(asked: InputsRequest) -> Response:
        """Some of the traced inputs as pictures."""
        return binary(scrubbing.pictures(asked.address, asked.indices))

    @app.post("/api/recordings/example")
    def example(stop: bool = False) -> dict[str, Any]:
        """Record the example, or stop it."""
        if not stop:
            return record_example().report()
        if _example is None:
            raise UsageError("No example is being recorded.", "Begin one.")
        _example.stop.set()
        return _example.report()

    @app.get("/api/recordings/example")
    def show_example() -> dict[str, Any]:
        """How far the example is."""
        return (
            _example.report()
            if _example
            else {"status": "none", "done": 0, "total": STEPS, "address": "", "message": ""}
        )
