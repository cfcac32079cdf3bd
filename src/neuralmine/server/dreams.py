"""Dreams in the background: one after another, each layer written when it is done, taken up again after a restart.

home/dreams/ID/dream.json        what was asked
home/dreams/ID/NN.png            each finished layer, with all that made it in its notes
home/dreams/ID/ended.json        how it ended; absent while there is more to do
"""

from __future__ import annotations

import io
import json
import queue
import shutil
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, Response
from fastapi.responses import StreamingResponse

from ..atomic import write_file
from ..datasets import photo as bundled
from ..errors import NeuralmineError, UnknownName, UsageError
from ..moving import notes_of, sheet, thumbnails, write_frames, write_picture
from ..octaves import Frame, Scene, Settings, climb, cost, distance, eight_bits, finished, ladder, scene_of, wanted_of
from ..pictures import opened
from ..reporting import page_of
from ..stores import runs, uploads
from ..types import Check, Finding
from ..views import Picture, Table
from . import resolve
from .answers import events
from .news import News, failure
from .requests import DreamOrder, DreamRequest


@dataclass(eq=False)
class Job(News):
    """One dream: what was asked, how far it is, and the orders for it."""

    LAST = ("done", "failed", "stopped")

    name: str
    asked: DreamRequest
    layers: list[str] = field(default_factory=list)
    done: list[bool] = field(default_factory=list)
    status: str = "waiting"  # waiting, dreaming, done, stopped or failed
    message: str = ""
    layer: int = 0
    share: float = 0.0  # of the layer that is dreamt
    left: float | None = None  # seconds
    objective: list[float] = field(default_factory=list)
    frame: np.ndarray | None = None
    about: dict[int, dict[str, Any]] = field(default_factory=dict)
    settings: Settings | None = None  # changed by hand while it dreams
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def path(self) -> Path:
        return _folder() / self.name

    def picture(self, index: int) -> Path:
        return self.path / f"{index + 1:02d}.png"

    def _report(self) -> dict[str, Any]:
        """What the page needs to draw it; the pictures are fetched by themselves."""
        return {
            "id": self.name, "asked": self.asked.model_dump(), "status": self.status, "message": self.message,
            "layers": self.layers, "done": list(self.done), "layer": self.layer, "share": self.share, "left": self.left,
            "objective": self.objective[-200:], "about": dict(self.about),
            "settings": asdict(self.settings or _settings(self.asked)),
        }  # fmt: skip


_jobs: dict[str, Job] = {}
_queue: queue.Queue[str] = queue.Queue()
_worker: threading.Thread | None = None
_lock = threading.Lock()
_reading = threading.Lock()


def _folder() -> Path:
    return runs.home() / "dreams"


def begin(asked: DreamRequest) -> Job:
    """Put a dream at the end of the queue. Raises UsageError and UnknownName for what cannot be dreamt."""
    network = resolve.network(asked.network)
    _settings(asked)
    photo_of(asked.photo)
    if asked.unit is not None or asked.target:
        if asked.layers == "all" and not asked.target:
            raise UsageError("A unit needs its layer.", "Name one layer.")
        wanted_of(
            scene_of(network, photo_of(asked.photo), []), layer=_one(asked), unit=asked.unit, target=asked.target or ""
        )
    else:
        ladder(network, asked.layers)
    name = time.strftime("%Y%m%d-%H%M%S-") + uuid.uuid4().hex[:6]
    write_file(_folder() / name / "dream.json", json.dumps({"created": time.time(), **asked.model_dump()}, indent=1))
    return _queued(name)


def of(name: str) -> Job:
    """The dream of that id. Raises UnknownName."""
    job = _jobs.get(name)
    if job is None:
        path = _folder() / name / "dream.json"
        if "/" in name or name.startswith(".") or not path.is_file():
            raise UnknownName("dream", name, [job.name for job in listed()])
        job = _read(name)
    return job


def listed() -> list[Job]:
    """All dreams on this machine, newest first."""
    if _folder().is_dir():
        for path in _folder().iterdir():
            if path.name not in _jobs and (path / "dream.json").is_file():
                _read(path.name)
    return sorted((job for job in list(_jobs.values()) if job.path.is_dir()), key=lambda job: job.name, reverse=True)


def go_on() -> None:
    """Take up what a restart interrupted, oldest first."""
    for job in reversed(listed()):
        if job.status == "waiting":
            _queued(job.name)


def control(job: Job, do: str, settings: Mapping[str, Any]) -> None:
    """Stop a dream, let it go on, or change how it climbs from here. Raises UsageError for impossible settings."""
    if do == "change":
        job.tell(settings=_settings(job.asked, settings, job.settings))
    elif do == "stop":
        job.stop.set()
        if job.status == "waiting":
            _end(job, "stopped")
    elif job.status in ("stopped", "failed"):
        (job.path / "ended.json").unlink(missing_ok=True)
        _queued(job.name)


def discard(job: Job) -> None:
    """Stop a dream and delete what it left."""
    job.stop.set()
    _jobs.pop(job.name, None)
    shutil.rmtree(job.path, ignore_errors=True)
    if job.status == "waiting":  # one that is dreamt says so itself, when it has stopped
        job.tell(status="stopped")


def photo_of(name: str) -> np.ndarray:
    """A photo by its bundled name or its upload's id."""
    return uploads.picture(name) if uploads.is_upload(name) else bundled(name)


def image(job: Job, index: int | None) -> bytes:
    """A layer's picture as it is now, or the photo as the dream begins with it (index = number of layers), as PNG."""
    from PIL import Image

    if index is None:
        # A frame may be gone by the time it is asked for: then the layer is done, or the next has not begun.
        shown = (
            job.frame
            if job.frame is not None
            else opened(job.picture(job.layer))
            if job.picture(job.layer).is_file()
            else photo(job)
        )
    elif index == len(job.layers):
        shown = photo(job)
    elif 0 <= index < len(job.layers) and job.picture(index).is_file():
        return job.picture(index).read_bytes()
    else:
        shown = None
    if shown is None:
        raise UsageError("This picture is not there yet.", "Wait until the layer is done.")
    buffer = io.BytesIO()
    Image.fromarray(shown).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def photo(job: Job) -> np.ndarray:
    """The photo as it went in, 8 bits: the last rung of every series."""
    return eight_bits(_scene(job).photo)


def export(job: Job, ending: str) -> tuple[bytes, str]:
    """The series as a file: gif, webp, mp4, sheet (PNG) or html; and its media type.

    Raises UsageError before anything is done, UnknownName for another kind, DataError for MP4 without its package.
    """
    ready = [i for i, done in enumerate(job.done) if done]
    if not ready:
        raise UsageError("No layer is done yet.", "Wait for the first one.")
    pictures = [*(opened(job.picture(i)) for i in ready), photo(job)]
    names = [*(job.layers[i] for i in ready), "the photo"]
    about = {
        "made with": "neuralmine",
        **job.asked.model_dump(),
        "settings": asdict(_settings(job.asked)),
        "layers": names,
    }
    if ending in ("gif", "webp", "mp4"):
        path = write_frames(pictures, job.path / f"series.{ending}", names=names, about=about)
        return path.read_bytes(), {"gif": "image/gif", "webp": "image/webp", "mp4": "video/mp4"}[ending]
    if ending == "sheet":
        return write_picture(sheet(pictures, names), job.path / "sheet.png", about).read_bytes(), "image/png"
    if ending == "html":
        return page_of(
            [_as_finding(job, ready, pictures, names)], f"Dreams of {job.asked.network.address}"
        ).encode(), "text/html"
    raise UnknownName("kind of file", ending, ("gif", "webp", "mp4", "sheet", "html"))


def _as_finding(job: Job, ready: list[int], pictures: list[np.ndarray], names: list[str]) -> Finding:
    small = np.asarray(thumbnails(pictures, 480), dtype=np.float32) / 255
    rows = tuple((job.layers[i], *map(float, job.about[i]["objective"]), float(job.about[i]["change"])) for i in ready)
    return Finding(
        {"objective": np.array([job.about[i]["objective"] for i in ready])},
        (Picture("dreams by depth, the photo last", small, tuple(names)),
         Table("how far each layer was climbed", ("layer", "objective of the photo", "of the dream", "L2 of the change"), rows)),
        tuple(Check("the objective rises", float(job.about[i]["objective"][1]), float(job.about[i]["objective"][0]), None,
                    job.about[i]["objective"][1] > job.about[i]["objective"][0], f"Mean square of {job.layers[i]}: of the dream, beside the photo's.") for i in ready[:1]),
        f"{len(ready)} layers of {job.asked.network.address} dreamt into {job.asked.photo}.",
        lens="dream_series", params=job.asked.settings,
    )  # fmt: skip


def _settings(asked: DreamRequest, more: Mapping[str, Any] | None = None, now: Settings | None = None) -> Settings:
    given = {**asked.settings, **(asdict(now) if now else {}), **(more or {})}
    for name in given:
        if name not in Settings.__dataclass_fields__:
            raise UnknownName("setting", name, Settings.__dataclass_fields__)
    whole = ("octaves", "steps", "jitter", "tile", "seed")
    return Settings(
        **{name: int(value) if name in whole and value == int(value) else value for name, value in given.items()}
    )


def _one(asked: DreamRequest) -> str:
    return "" if asked.target else asked.layers


def _scene(job: Job) -> Scene:
    network = resolve.network(job.asked.network)
    single = job.asked.unit is not None or job.asked.target
    return scene_of(
        network,
        photo_of(job.asked.photo),
        [_one(job.asked)] if single else [x.name for x in ladder(network, job.asked.layers)],
    )


def _read(name: str) -> Job:
    """The dream as it lies on disk; two that ask at once get the same one, and nobody gets it half read."""
    with _reading:
        if name in _jobs:
            return _jobs[name]
        said = json.loads((_folder() / name / "dream.json").read_text())
        said.pop("created", None)
        job = Job(name, DreamRequest(**said))
        ended = job.path / "ended.json"
        try:
            _lay_out(job)
            if ended.is_file():
                told = json.loads(ended.read_text())
                job.status, job.message = told["status"], told["message"]
        except NeuralmineError as error:  # its photo or network is gone: still listed, and it says why
            job.status, job.message = "failed", str(error)
        _jobs[name] = job
        return job


def _lay_out(job: Job) -> None:
    """Which layers there are, and which of them are done already."""
    asked, network = job.asked, resolve.network(job.asked.network)
    if asked.target:
        job.layers = [f"class {asked.target}"]
    elif asked.unit is not None:
        job.layers = [f"{asked.layers}, unit {asked.unit}"]
    else:
        job.layers = [layer.name for layer in ladder(network, asked.layers)]
    job.done = [job.picture(i).is_file() for i in range(len(job.layers))]
    job.about = {i: notes_of(job.picture(i)) for i, done in enumerate(job.done) if done}


def _queued(name: str) -> Job:
    global _worker
    job = _read(name)
    job.stop.clear()
    job.tell(status="waiting", message="")
    _queue.put(name)
    with _lock:
        if _worker is None or not _worker.is_alive():
            _worker = threading.Thread(target=_life, name="dreams", daemon=True)
            _worker.start()
    return job


def _life() -> None:
    while True:
        job = _jobs.get(_queue.get())
        if job is None or job.status != "waiting":
            continue
        try:
            _dream(job)
        except Exception as error:  # whatever went wrong belongs on the page, not into a thread's silence
            _end(job, "failed", failure(error))


def _end(job: Job, status: str, message: str = "") -> None:
    if job.path.is_dir():
        write_file(job.path / "ended.json", json.dumps({"status": status, "message": message}))
    job.tell(status=status, message=message, left=None, frame=None)


def _dream(job: Job) -> None:
    network = resolve.network(job.asked.network)
    job.tell(status="dreaming")
    scene = _scene(job)
    single = job.asked.unit is not None or bool(job.asked.target)
    costs = [1.0] if single else [cost(network, name) for name in job.layers]
    began, spent = time.monotonic(), 0.0
    todo = sum(c for c, done in zip(costs, job.done, strict=True) if not done)
    for index, name in enumerate(job.layers):
        if job.done[index]:
            continue
        wanted = wanted_of(
            scene, layer=_one(job.asked) if single else name, unit=job.asked.unit, target=job.asked.target or ""
        )
        settings = job.settings or _settings(job.asked)
        frames, objective, seen, frame = climb(scene, wanted, settings), [], [], None
        while True:
            frame = next(frames)
            if frame.last:
                break
            seen += frame.trouble
            objective.append(frame.objective)
            spent_now = spent + costs[index] * frame.done
            elapsed = time.monotonic() - began
            job.tell(
                layer=index, share=frame.done, objective=list(objective), frame=_small(frame),
                left=elapsed * (todo - spent_now) / spent_now if spent_now else None,
            )  # fmt: skip
            if job.stop.is_set():
                _end(job, "stopped")
                return
            if job.settings is not None and job.settings != settings:
                settings = job.settings
                frames = climb(scene, wanted, settings, frame.capture())
        one = finished(scene, wanted, settings, frame, np.array(objective), seen)
        about = {
            "layer": name, "network": network.name, "photo": job.asked.photo, **asdict(settings),
            "objective": [one.before, one.after], "change": distance(scene.photo, one.picture), "factor": one.factor, "note": one.note,
        }  # fmt: skip
        if not job.path.is_dir():  # discarded meanwhile: nothing of it may come back
            _end(job, "stopped")
            return
        write_picture(eight_bits(one.picture), job.picture(index), about)
        spent += costs[index]
        done = [ready or i == index for i, ready in enumerate(job.done)]
        job.tell(done=done, about={**job.about, index: about}, share=0.0, frame=None)
    _end(job, "done")


def _small(frame: Frame) -> np.ndarray:
    """The frame as the page shows it while it changes: at most 480 pixels wide."""
    picture = (frame.picture * 255).round().astype(np.uint8)
    return thumbnails([picture], 480)[0]


def add(app: FastAPI) -> None:
    """The routes."""

    @app.get("/api/dreams")
    def list_dreams() -> list[dict[str, Any]]:
        """Every dream on this machine, newest first."""
        return [job.report() for job in listed()]

    @app.post("/api/dreams")
    def begin_dream(asked: DreamRequest) -> dict[str, Any]:
        """Begin a dream, or put it at the end of the queue."""
        return begin(asked).report()

    @app.get("/api/dreams/{name}")
    def show_dream(name: str) -> dict[str, Any]:
        """How far a dream is."""
        return of(name).report()

    @app.post("/api/dreams/{name}/control")
    def control_dream(name: str, order: DreamOrder) -> dict[str, Any]:
        """Stop, go on, or climb differently from here."""
        job = of(name)
        control(job, order.do, order.settings)
        return job.report()

    @app.delete("/api/dreams/{name}")
    def discard_dream(name: str) -> dict[str, str]:
        """Stop a dream and delete it."""
        discard(of(name))
        return {"discarded": name}

    @app.get("/api/dreams/{name}/events")
    def dream_events(name: str) -> StreamingResponse:
        """A dream's reports as they change (server-sent events)."""
        return events(of(name))

    @app.get("/api/dreams/{name}/frame")
    def dream_frame(name: str) -> Response:
        """The layer that is dreamt, as it is now (PNG)."""
        return Response(image(of(name), None), media_type="image/png", headers={"Cache-Control": "no-store"})

    @app.get("/api/dreams/{name}/layers/{index}")
    def dream_layer(name: str, index: int) -> Response:
        """A finished layer; after the last comes the photo (PNG)."""
        return Response(image(of(name), index), media_type="image/png")

    @app.get("/api/dreams/{name}/file/{ending}")
    def dream_file(name: str, ending: str) -> Response:
        """The series as gif, webp, mp4, sheet (PNG) or html."""
        data, kind = export(of(name), ending)
        suffix = "png" if ending == "sheet" else ending
        headers = {"Content-Disposition": f'attachment; filename="dreams.{suffix}"'}
        return Response(data, media_type=kind, headers=headers)
