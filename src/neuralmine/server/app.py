"""The HTTP interface: JSON for small things, one binary frame (see wire.frame) where numbers travel."""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from PIL import Image

from .. import datasets, optimizers, studies
from ..errors import DataError, NetworkError, NeuralmineError, StoreError, UnknownName, UsageError
from ..lens import find, look, summaries
from ..losses import LOSSES
from ..networks import catalogue, vision
from ..reporting import page_of
from ..sentences import stream_layers
from ..stores import runs, seals, uploads
from ..training import Settings
from ..types import Finding, Network, Verdict
from ..wire import frame
from . import LOOPBACK, dreams, examples, jobs, methods, page_folder, pieces, races, recordings, resolve, toys, underway
from .requests import (
    ControlRequest,
    DataRequest,
    DreamOrder,
    DreamRequest,
    ExamplesRequest,
    LookRequest,
    NetworkRequest,
    RaceOrder,
    RaceRequest,
    RaceStart,
    ReportRequest,
    RunRequest,
)

# A name that whoever asks makes up, to ask with how far the answer is.
Ticket = Annotated[str, Header(alias="Neuralmine-Ticket", max_length=64)]
Handler = Callable[[Request], Awaitable[Response]]


def make_app(host: str = "127.0.0.1", token: str | None = None) -> FastAPI:
    """The application; with a token, every request must carry it (as a cookie, set by the first address opened)."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        jobs.stop_all()
        toys.stop_all()
        recordings.stop()
        methods.stop_all()

    app = FastAPI(title="Neuralmine", lifespan=life, docs_url=None, redoc_url=None)
    app.middleware("http")(_guard(host, token))
    app.add_exception_handler(NeuralmineError, _failed)
    _describe(app)
    _answer(app)
    _see(app)
    _train(app)
    _dream(app)
    _race(app)
    recordings.add(app)
    methods.add(app)
    toys.add(app)
    pieces.add(app)
    _page(app)
    return app


def warm_up() -> None:
    """Do once what the first page will ask for, and go on with dreams that were left."""
    import torch

    torch.set_num_threads(1)  # nets this small lose more than they gain by sharing the work
    asked = NetworkRequest()
    look("confusion", resolve.network(asked), resolve.data(DataRequest(**(_data_of(asked.address) or {}))), shuffles=1)
    dreams.go_on()
    try:
        look("token_relations", resolve.network(NetworkRequest(address="minilm")), "The Cat Chases Mice")
    except NetworkError:
        return  # without the text extra; the page that needs it says so


def _guard(host: str, token: str | None) -> Callable[[Request, Handler], Awaitable[Response]]:
    async def guard(request: Request, call_next: Handler) -> Response:
        named = (request.url.hostname or "").strip("[]")
        # On loopback, another site's page could reach us under a name of its own (DNS rebinding).
        if host in LOOPBACK and named not in (*LOOPBACK, "testserver"):
            return _refused(f"This server answers to localhost only, not to {named!r}.", 421)
        origin = request.headers.get("origin")
        if request.method not in ("GET", "HEAD") and origin and origin.split("//")[-1] != request.headers.get("host"):
            return _refused("This request came from another site's page.", 403)
        if token is None:
            return await call_next(request)
        given = request.query_params.get("token") or request.cookies.get("neuralmine_token") or ""
        if not secrets.compare_digest(given.encode(), token.encode()):
            return _refused("A token is needed: open the address that `neuralmine serve` printed.", 401)
        response = await call_next(request)
        response.set_cookie("neuralmine_token", token, httponly=True, samesite="strict")
        return response

    return guard


def _refused(what: str, status: int) -> JSONResponse:
    return JSONResponse({"what": what, "hint": "", "kind": "Refused"}, status)


async def _failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, NeuralmineError)
    status = 404 if isinstance(error, UnknownName) else 507 if isinstance(error, StoreError) else 422
    return JSONResponse({"what": error.what, "hint": error.hint, "kind": type(error).__name__}, status)


def _binary(value: Any) -> Response:
    return Response(frame(value), media_type="application/octet-stream")


def _describe(app: FastAPI) -> None:
    @app.get("/api/catalogue")
    def list_catalogue() -> dict[str, Any]:
        """Everything there is to choose from."""
        return {
            "networks": [_preset(name) for name in catalogue.PRESETS],
            "data": datasets.names(),
            "lenses": summaries(),
            "studies": studies.names(),
            "optimizers": optimizers.NAMES,
            "losses": LOSSES,
            "settings": {name: getattr(Settings(), name) for name in Settings.__dataclass_fields__},
        }

    @app.get("/api/lenses/{name}")
    def describe_lens(name: str) -> dict[str, Any]:
        """A lens's options, for a form."""
        found = find(name)
        options = [{key: getattr(option, key) for key in option.__dataclass_fields__} for option in found.options]
        return {"name": found.name, "summary": found.summary, "on": found.on, "nouns": found.nouns, "options": options}

    @app.post("/api/network")
    def describe_network(asked: NetworkRequest) -> dict[str, Any]:
        """A network's layers, where it comes from, and on what it was trained."""
        found = resolve.network(asked)
        return {
            "address": asked.address,
            "name": found.name,
            # A vocabulary is tens of thousands of words: the page asks the lenses for those it needs.
            "labels": found.labels if found.domain != "tokens" else (),
            "speaks": found.domain == "tokens" and bool(found.labels),
            "shape": found.shape,
            "loss": found.loss,
            "domain": found.domain,
            "layers": [{key: getattr(layer, key) for key in layer.__dataclass_fields__} for layer in found.layers],
            "untraced": dict(found.untraced),
            "parameters": sum(p.numel() for p in found.module.parameters()),
            "source": {key: getattr(found.source, key) for key in found.source.__dataclass_fields__},
            "data": _data_of(asked.address),
            "blocks": _stream_of(found),
        }


def _stream_of(network: Network) -> list[str]:
    return list(stream_layers(network)) if network.domain == "tokens" else []


def _preset(name: str) -> dict[str, Any]:
    preset = catalogue.PRESETS[name]
    return {
        "name": name,
        "summary": preset.summary,
        "sizes": preset.architecture["sizes"],
        "architecture": preset.architecture,
        "loss": preset.loss,
        "training": preset.training,
        "data": preset.data,
        "classes": preset.classes,
    }


def _data_of(address: str) -> dict[str, Any] | None:
    """The data a network belongs to, as a DataRequest; None for networks that belong to none."""
    if address.partition(":")[0] in ("minilm", "hf", *vision.NAMES):
        return None
    if address.startswith("run:"):
        said = runs.about(runs.find(address[4:].partition("@")[0]))
        return {**said["data"], "part": "test"}
    preset = catalogue.preset(address.partition(":")[0])
    classes = list(preset.classes) if len(preset.classes) < 10 else None
    return DataRequest(name=preset.data, classes=classes).model_dump()


def _answer(app: FastAPI) -> None:
    @app.post("/api/look")
    def look_through(asked: LookRequest, ticket: Ticket = "") -> Response:
        """A Finding, as a binary frame."""
        with underway.told(ticket):
            return _binary(_looked(asked))

    @app.get("/api/underway/{ticket}")
    def how_far(ticket: str) -> dict[str, Any] | None:
        """How far the work is that was asked for with this ticket; null when it is done."""
        return underway.report(ticket)

    @app.delete("/api/underway/{ticket}")
    def call_off(ticket: str) -> None:
        """Stop that work."""
        underway.stop(ticket)

    @app.post("/api/report")
    def save_report(asked: ReportRequest) -> Response:
        """Findings as one HTML file that opens without a server."""
        html = page_of([_looked(one) for one in asked.looks], asked.title)
        headers = {"Content-Disposition": 'attachment; filename="neuralmine.html"'}
        return Response(html, media_type="text/html", headers=headers)

    @app.post("/api/studies/{name}")
    def measure_claim(name: str, seed: int = 0, ticket: Ticket = "") -> Response:
        """A Verdict with its Finding, as a binary frame."""
        with underway.told(ticket):
            return _binary(_measured(name, seed))

    @app.post("/api/data")
    def images(asked: DataRequest, start: int = 0, count: int = 500) -> Response:
        """Images `start` to `start + count` of a part: pixels, labels, and where each stands in the whole set."""
        part = resolve.data(asked)
        where = slice(max(start, 0), max(start, 0) + min(count, 2000))
        return _binary(
            {
                "images": part.images[where].astype(np.float32),
                "labels": part.labels[where].astype(np.int32),
                "indices": resolve.indices(asked)[where].astype(np.int32),
                "classes": part.classes,
                "shape": part.shape,
                "total": len(part),
                "note": part.note,
                "source": part.source,
            }
        )


@lru_cache(maxsize=64)
def _measured(name: str, seed: int) -> Verdict:
    """The same seed gives the same figures, so a claim is measured once while the server runs."""
    return studies.study(name, seed=seed)


def _looked(asked: LookRequest) -> Finding:
    spec = find(asked.lens)
    nouns: list[Any] = []
    for noun in spec.nouns:
        if noun == "network":
            nouns.append(resolve.network(asked.network))
        elif noun == "data":
            nouns.append(resolve.data(asked.data or DataRequest(**(_data_of(asked.network.address) or {}))))
        else:
            nouns.append(resolve.given(asked.input, nouns[0]) if asked.input else np.zeros(nouns[0].shape))
    return look(asked.lens, *nouns, **asked.options)


LARGEST_UPLOAD = 200_000_000  # bytes


def _see(app: FastAPI) -> None:
    @app.get("/api/photos")
    def list_photos() -> dict[str, str]:
        """The photos that are here: name to one line."""
        return {name: words for name, (_, words) in datasets.PHOTOS.items()}

    @app.post("/api/pictures")
    async def keep_picture(request: Request) -> dict[str, Any]:
        """Keep a picture (the body is its file): its id, rows and columns."""
        data = bytearray()
        async for part in request.stream():
            data += part
            if len(data) > LARGEST_UPLOAD:
                raise DataError(f"This file is larger than {LARGEST_UPLOAD // 10**6} MB.", "Make the picture smaller.")
        name, (rows, columns) = await run_in_threadpool(uploads.keep, bytes(data))
        return {"id": name, "rows": rows, "columns": columns}

    @app.get("/api/pictures/{name}")
    def show_picture(name: str) -> Response:
        """A photo or a kept picture as a PNG."""
        picture = uploads.picture(name) if uploads.is_upload(name) else datasets.photo(name)
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
        return Response(buffer.getvalue(), media_type="image/png", headers={"Cache-Control": "max-age=86400"})

    @app.post("/api/examples")
    def find_examples(asked: ExamplesRequest, begin: bool = False, stop: bool = False) -> dict[str, Any]:
        """How far the search for the strongest patches is; `begin` begins or goes on with it, `stop` stops it."""
        search = examples.begin(asked) if begin else examples.of(asked)
        if search is None:
            return {"status": "none", "done": 0, "total": 0, "message": ""}
        if stop:
            search.stop.set()
        return search.report()

    @app.post("/api/examples/found")
    def found_examples(asked: ExamplesRequest, layer: str, unit: int) -> Response:
        """The strongest patches of one map: pictures with their boxes, values and places."""
        search = examples.of(asked)
        if search is None or search.finding is None:
            raise UsageError("The strongest patches were not searched for yet.", "Begin the search.")
        return _binary(
            examples.of_map(search.finding, resolve.network(asked.network), examples.data_of(asked), layer, unit)
        )


def _train(app: FastAPI) -> None:
    @app.get("/api/runs")
    def list_runs() -> list[dict[str, Any]]:
        """Every run on this machine, newest first."""
        return [{**run, "status": jobs.get(run["id"]).status} for run in seals.log()]

    @app.post("/api/runs")
    def begin_run(asked: RunRequest) -> dict[str, Any]:
        """Begin a training run."""
        return jobs.begin(asked)

    @app.get("/api/runs/{name}")
    def run_history(name: str) -> dict[str, Any]:
        """A run's settings and every recorded step, for its curves and its scrubber."""
        path = runs.find(name)
        lines = runs.events(path)
        return {
            **runs.about(path),
            **jobs.get(name).report(),
            "now": jobs.get(name).settings(),
            "steps": [line for line in lines if "metrics" in line],
            "changes": [line for line in lines if "changed" in line],
            "checkpoints": runs.checkpoints(path),
            "seal": seals.seal(path),
        }

    @app.post("/api/runs/{name}/seal")
    def open_seal(name: str) -> dict[str, Any]:
        """Test a run on its sealed images, once; a second time says when the first was."""
        return jobs.open_seal(name)

    @app.post("/api/runs/{name}/control")
    def control_run(name: str, order: ControlRequest) -> dict[str, Any]:
        """Play, pause, one step, change settings, rewind."""
        job = jobs.get(name)
        job.tell(order)
        return job.report()

    @app.delete("/api/runs/{name}")
    def discard_run(name: str) -> dict[str, str]:
        """Stop a run and delete it."""
        jobs.discard(name)
        return {"discarded": name}

    @app.get("/api/runs/{name}/events")
    def run_events(name: str) -> StreamingResponse:
        """The run's reports as they change (server-sent events)."""
        job = jobs.get(name)

        def lines() -> Iterator[str]:
            for report in jobs.updates(job):
                yield f"data: {json.dumps(report)}\n\n" if report else ": waiting\n\n"

        return StreamingResponse(lines(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


def _dream(app: FastAPI) -> None:
    @app.get("/api/dreams")
    def list_dreams() -> list[dict[str, Any]]:
        """Every dream on this machine, newest first."""
        return [job.report() for job in dreams.listed()]

    @app.post("/api/dreams")
    def begin_dream(asked: DreamRequest) -> dict[str, Any]:
        """Begin a dream, or put it at the end of the queue."""
        return dreams.begin(asked).report()

    @app.get("/api/dreams/{name}")
    def show_dream(name: str) -> dict[str, Any]:
        """How far a dream is."""
        return dreams.of(name).report()

    @app.post("/api/dreams/{name}/control")
    def control_dream(name: str, order: DreamOrder) -> dict[str, Any]:
        """Stop, go on, or climb differently from here."""
        job = dreams.of(name)
        dreams.control(job, order.do, order.settings)
        return job.report()

    @app.delete("/api/dreams/{name}")
    def discard_dream(name: str) -> dict[str, str]:
        """Stop a dream and delete it."""
        dreams.discard(dreams.of(name))
        return {"discarded": name}

    @app.get("/api/dreams/{name}/events")
    def dream_events(name: str) -> StreamingResponse:
        """A dream's reports as they change (server-sent events)."""
        job = dreams.of(name)
        lines = (f"data: {json.dumps(report)}\n\n" for report in dreams.updates(job))
        return StreamingResponse(lines, media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    @app.get("/api/dreams/{name}/frame")
    def dream_frame(name: str) -> Response:
        """The layer that is dreamt, as it is now (PNG)."""
        return Response(
            dreams.image(dreams.of(name), None), media_type="image/png", headers={"Cache-Control": "no-store"}
        )

    @app.get("/api/dreams/{name}/layers/{index}")
    def dream_layer(name: str, index: int) -> Response:
        """A finished layer; after the last comes the photo (PNG)."""
        return Response(dreams.image(dreams.of(name), index), media_type="image/png")

    @app.get("/api/dreams/{name}/file/{ending}")
    def dream_file(name: str, ending: str) -> Response:
        """The series as gif, webp, mp4, sheet (PNG) or html."""
        data, kind = dreams.export(dreams.of(name), ending)
        suffix = "png" if ending == "sheet" else ending
        headers = {"Content-Disposition": f'attachment; filename="dreams.{suffix}"'}
        return Response(data, media_type=kind, headers=headers)


def _race(app: FastAPI) -> None:
    @app.post("/api/races")
    def begin_race(asked: RaceRequest) -> dict[str, Any]:
        """Begin a race of optimizers; one that is running stops."""
        return races.begin(asked).report()

    @app.get("/api/races/{name}")
    def show_race(name: str) -> dict[str, Any]:
        """How far a race is."""
        return races.of(name).report()

    @app.post("/api/races/{name}/control")
    def control_race(name: str, order: RaceOrder) -> dict[str, Any]:
        """Change rates from the next step on, the pace, or stop."""
        race = races.of(name)
        races.control(race, order.stop, order.pace, order.rates)
        return race.report()

    @app.post("/api/races/{name}/start")
    def move_start(name: str, place: RaceStart) -> dict[str, Any]:
        """Keep a place of the plane that is seen as a start: its id, for the next race."""
        return races.moved(races.of(name), place.plane, place.x, place.y)

    @app.get("/api/races/{name}/events")
    def race_events(name: str) -> StreamingResponse:
        """A race's reports as they change (server-sent events)."""
        race = races.of(name)
        lines = (f"data: {json.dumps(report)}\n\n" for report in races.updates(race))
        return StreamingResponse(lines, media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    @app.post("/api/races/{name}/surface")
    def race_surface(name: str) -> Response:
        """The loss on the plane that is seen, as fine as it is by now."""
        seen = races.of(name).seen
        if seen is None:
            raise UsageError("The surface is not there yet.", "It comes a moment after the race has begun.")
        step = seen.surface
        return _binary(
            {
                "plane": seen.number,
                "x": step.x,
                "y": step.y,
                "loss": step.loss,
                "done": step.done,
                "total": step.total,
            }
        )


def _page(app: FastAPI) -> None:
    @app.get("/{path:path}", include_in_schema=False)
    def page(path: str) -> Response:
        folder = page_folder().resolve()
        if path.startswith("api/"):
            return _refused(f"There is no /{path} here.", 404)
        file = (folder / path).resolve()
        if path and file.is_file() and file.is_relative_to(folder):
            kept = "public, max-age=31536000, immutable" if path.startswith("assets/") else "no-cache"
            return FileResponse(file, headers={"Cache-Control": kept})
        if "." in path.rsplit("/", 1)[-1]:
            return _refused(f"There is no file /{path}.", 404)
        return FileResponse(folder / "index.html", headers={"Cache-Control": "no-cache"})
