"""Looking: findings of lenses and studies, data and reports, and how far an answer is that takes its time."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Header, Response

from .. import studies
from ..lens import find, look
from ..reporting import page_of
from ..types import Finding, Verdict
from . import resolve, underway
from .answers import binary
from .requests import DataRequest, LookRequest, ReportRequest

# A name that whoever asks makes up, to ask with how far the answer is.
Ticket = Annotated[str, Header(alias="Neuralmine-Ticket", max_length=64)]


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
            nouns.append(resolve.data(asked.data or DataRequest(**(resolve.data_of(asked.network.address) or {}))))
        else:
            nouns.append(resolve.given(asked.input, nouns[0]) if asked.input else np.zeros(nouns[0].shape))
    return look(asked.lens, *nouns, **asked.options)


def add(app: FastAPI) -> None:
    """The routes."""

    @app.post("/api/look")
    def look_through(asked: LookRequest, ticket: Ticket = "") -> Response:
        """A Finding, as a binary frame."""
        with underway.told(ticket):
            return binary(_looked(asked))

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
            return binary(_measured(name, seed))

    @app.post("/api/data")
    def images(asked: DataRequest, start: int = 0, count: int = 500) -> Response:
        """Images `start` to `start + count` of a part: pixels, labels, and where each stands in the whole set."""
        part = resolve.data(asked)
        where = slice(max(start, 0), max(start, 0) + max(0, min(count, 2000)))
        return binary(
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
