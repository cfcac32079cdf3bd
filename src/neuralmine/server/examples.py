"""The strongest patches of a data set, found in the background: goes on after a restart, can be stopped."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from fastapi import FastAPI, Response

from .. import datasets
from ..errors import UnknownName, UsageError
from ..lens import look, weights_hash
from ..lenses.deconvnet import project
from ..lenses.top_examples import strongest
from ..stores import runs
from ..types import Dataset, Finding, Network
from . import resolve
from .answers import binary
from .news import failure
from .requests import ExamplesRequest


@dataclass
class Search:
    """One search: how far it is, and what it found."""

    status: str = "running"  # running, done, stopped or failed
    done: int = 0
    total: int = 0
    message: str = ""
    finding: Finding | None = None
    stop: threading.Event = field(default_factory=threading.Event)

    def report(self) -> dict[str, Any]:
        return {"status": self.status, "done": self.done, "total": self.total, "message": self.message}


_searches: dict[str, Search] = {}
_lock = threading.Lock()


def data_of(asked: ExamplesRequest) -> Dataset:
    """The pictures to search: the bundled tiles, or a folder, each read when its turn comes."""
    network = resolve.network(asked.network)
    if asked.folder:
        from ..datasets.stream import stream

        return stream(asked.folder, size=(network.shape[-2], network.shape[-1]))
    return datasets.load("tiles", size=network.shape[-1])


def search_for(asked: ExamplesRequest) -> Search:
    """Begin a search, or give the one that is under way or done."""
    name = _name(asked)
    with _lock:
        found = _searches.get(name)
        if found is None or found.status in ("stopped", "failed"):
            found = _searches[name] = Search()
            threading.Thread(target=_search, args=(found, asked, name), name="top examples", daemon=True).start()
    return found


def of(asked: ExamplesRequest) -> Search | None:
    """The search for this, if one was begun since the server started."""
    return _searches.get(_name(asked))


def _name(asked: ExamplesRequest) -> str:
    network = resolve.network(asked.network)
    return hashlib.sha256(f"{weights_hash(network)} {asked.folder or 'tiles'}".encode()).hexdigest()[:20]


def _search(search: Search, asked: ExamplesRequest, name: str) -> None:
    keep = str(runs.home() / "examples" / name)
    try:
        network, data = resolve.network(asked.network), data_of(asked)
        # Not through `look`, which would keep the page waiting: only the short end of the work is.
        for search.done, search.total in strongest(network, data, keep=keep):
            if search.stop.is_set():
                search.status = "stopped"
                return
        search.finding = look("top_examples", network, data, keep=keep)
        search.status = "done"
    except Exception as error:  # whatever went wrong belongs on the page, not into a thread's silence
        search.status, search.message = "failed", failure(error)


def of_map(finding: Finding, network: Network, data: Dataset, layer: str, unit: int) -> dict[str, Any]:
    """The strongest patches of one map: "patches" (each rows × columns × 3), "projections" of them (what of the patch
    lit the place, on a grey ground), "value", "row", "column", "box", "image".

    Raises UnknownName for a layer that was not searched, UsageError for a map that it does not have.
    """
    layers = list(finding.provenance["layers"])
    if layer not in layers:
        raise UnknownName("layer", layer, layers)
    numbers = finding.numbers
    where = np.flatnonzero((numbers["layer"] == layers.index(layer)) & (numbers["unit"] == unit))
    if not len(where):
        raise UsageError(f"{layer} has no map {unit}.", "Choose a map that is there.")
    own = {key: numbers[key][where[0]] for key in ("value", "image", "row", "column", "box")}
    patches, projections = [], []
    for image, row, column, box in zip(own["image"], own["row"], own["column"], own["box"], strict=True):
        picture = np.asarray(data.images[int(image)], dtype=np.float32)
        _, _, projected = project(network, network.encode(picture)[:1], layer, unit, int(row), int(column))
        seen = slice(max(0, int(box[0])), int(box[2])), slice(max(0, int(box[1])), int(box[3]))
        patches.append((picture if picture.shape[-1] == 3 else np.moveaxis(picture, 0, -1))[seen])
        lit = np.moveaxis(projected, 0, -1)[seen]
        projections.append((0.5 + 0.5 * lit / (np.abs(lit).max() or 1.0)).astype(np.float32))
    names = [data.classes[int(data.labels[int(image)])] for image in own["image"]]
    return {
        "patches": patches,
        "projections": projections,
        "names": names,
        "pictures": len(data),
        "source": data.name,
        **own,
    }


def add(app: FastAPI) -> None:
    """The routes."""

    @app.post("/api/examples")
    def find_examples(asked: ExamplesRequest, begin: bool = False, stop: bool = False) -> dict[str, Any]:
        """How far the search for the strongest patches is; `begin` begins or goes on with it, `stop` stops it."""
        search = search_for(asked) if begin else of(asked)
        if search is None:
            return {"status": "none", "done": 0, "total": 0, "message": ""}
        if stop:
            search.stop.set()
        return search.report()

    @app.post("/api/examples/found")
    def found_examples(asked: ExamplesRequest, layer: str, unit: int) -> Response:
        """The strongest patches of one map: pictures with their boxes, values and places."""
        search = of(asked)
        if search is None or search.finding is None:
            raise UsageError("The strongest patches were not searched for yet.", "Begin the search.")
        return binary(of_map(search.finding, resolve.network(asked.network), data_of(asked), layer, unit))
