"""How answers travel: numbers as one binary frame, reports as server-sent events."""

from __future__ import annotations

import json
from typing import Any

from fastapi import Response
from fastapi.responses import StreamingResponse

from ..wire import frame
from .news import News


def binary(value: Any) -> Response:
    """Numbers and what belongs to them (see wire.frame)."""
    return Response(frame(value), media_type="application/octet-stream")


def events(work: News) -> StreamingResponse:
    """The work's reports as they change."""
    lines = (f"data: {json.dumps(report)}\n\n" if report else ": waiting\n\n" for report in work.reports())
    return StreamingResponse(lines, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
