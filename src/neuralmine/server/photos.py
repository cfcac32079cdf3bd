"""The photos that are here, and the pictures that a page brings."""

from __future__ import annotations

import io
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from PIL import Image

from .. import datasets
from ..errors import DataError
from ..stores import uploads

LARGEST_UPLOAD = 200_000_000  # bytes


def add(app: FastAPI) -> None:
    """The routes."""

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
