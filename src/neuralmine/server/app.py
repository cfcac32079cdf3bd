"""The HTTP interface: who may ask, what errors say, and the page. Each area adds its routes from a file of its own.

JSON for small things, one binary frame (see wire.frame) where numbers travel.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse

from ..errors import NetworkError, NeuralmineError, StoreError, UnknownName
from ..lens import look
from . import (
    LOOPBACK,
    describing,
    dreams,
    examples,
    jobs,
    looking,
    methods,
    page_folder,
    photos,
    pieces,
    races,
    recordings,
    resolve,
    toys,
)
from .requests import DataRequest, NetworkRequest

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
    for area in (describing, looking, photos, examples, jobs, dreams, races, recordings, methods, toys, pieces):
        area.add(app)
    _page(app)
    return app


def warm_up() -> None:
    """Do once what the first page will ask for, and go on with dreams that were left."""
    import torch

    torch.set_num_threads(1)  # nets this small lose more than they gain by sharing the work
    asked = NetworkRequest()
    data = resolve.data(DataRequest(**(resolve.data_of(asked.address) or {})))
    look("confusion", resolve.network(asked), data, shuffles=1)
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
