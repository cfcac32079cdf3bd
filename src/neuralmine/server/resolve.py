"""From what the page asks to nouns: networks by address, data by name, images by place; the recent ones are kept."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from typing import Any

import numpy as np

from .. import datasets, pictures
from ..attribution import picture_of
from ..errors import UsageError
from ..lenses.corrupt import damaged
from ..networks import catalogue, load, vision
from ..networks.edited import edited
from ..stores import runs, uploads
from ..types import Dataset, Network
from .requests import DataRequest, InputRequest, NetworkRequest

_networks: OrderedDict[str, Network] = OrderedDict()
_making: dict[str, threading.Lock] = {}
_lock = threading.Lock()


def network(asked: NetworkRequest) -> Network:
    """The network at an address, with the changes made by hand."""
    found = _by_address(asked.address)
    if not asked.weights and not asked.off:
        return found
    changes: dict[str, list[tuple[list[int], float]]] = {}
    for edit in asked.weights:
        changes.setdefault(edit.parameter, []).append((edit.index, edit.value))
    return edited(found, weights=changes, off=asked.off)


def _by_address(address: str) -> Network:
    """The catalogue, the runs, and `hf:` models (safetensors, no code of theirs runs): nothing a page names is executed."""
    kind, _, rest = address.partition(":")
    if kind == "run":
        name, _, step = rest.partition("@")
        path = runs.find(name)
        if step and not step.isdigit():
            raise UsageError(f"{step!r} is no step of a run.", "Write run:NAME@120.")
        if not step:  # the latest changes while it trains, so it is never kept
            return runs.load_network(path)
        return _kept(address, lambda: runs.load_network(path, int(step)))
    if kind in ("minilm", "hf", *vision.NAMES):
        untrained = address.endswith(":untrained")
        return _kept(address, lambda: load(address.removesuffix(":untrained"), trained=not untrained))
    if rest not in ("", "untrained"):
        raise UsageError(f"{address!r} is no network's address.", "Write 64-16-10, 64-16-10:untrained or run:NAME@120.")
    return _kept(address, lambda: catalogue.load_preset(kind, trained=not rest))


def _kept(address: str, make: Any) -> Network:
    with _lock:
        if address in _networks:
            _networks.move_to_end(address)
            return _networks[address]
        making = _making.setdefault(address, threading.Lock())
    with making:  # a second request for the same network waits for the first, instead of loading it again
        with _lock:
            if address in _networks:
                return _networks[address]
        try:
            made = make()
            with _lock:
                _networks[address] = made
                while len(_networks) > 64:
                    _networks.popitem(last=False)
        finally:
            _making.pop(address, None)
    return made


def forget(run: str) -> None:
    """Forget the kept networks of a run, after it was rewound or discarded."""
    with _lock:
        for address in [a for a in _networks if a.startswith(f"run:{run}")]:
            del _networks[address]


@functools.lru_cache(maxsize=4)
def _whole(name: str) -> Dataset:
    return datasets.load(name)


def data(asked: DataRequest) -> Dataset:
    """The part of a data set that was asked for."""
    whole = _whole(asked.name)
    if asked.classes:
        whole = whole.only(tuple(asked.classes))
    if asked.part == "all" and not asked.sealed:
        return whole
    return whole.take(indices(asked), whole.name if asked.part == "all" else f"{whole.name} {asked.part}")


def data_of(address: str) -> dict[str, Any] | None:
    """The data a network belongs to, as a DataRequest; None for networks that belong to none."""
    if address.partition(":")[0] in ("minilm", "hf", *vision.NAMES):
        return None
    if address.startswith("run:"):
        said = runs.about(runs.find(address[4:].partition("@")[0]))
        return {**said["data"], "part": "test"}
    preset = catalogue.preset(address.partition(":")[0])
    classes = list(preset.classes) if len(preset.classes) < 10 else None
    return DataRequest(name=preset.data, classes=classes).model_dump()


@functools.lru_cache(maxsize=16)
def _indices(
    name: str, classes: tuple[str, ...], test: float, seed: int, sealed: float
) -> tuple[np.ndarray, np.ndarray]:
    whole = _whole(name)
    return (whole.only(classes) if classes else whole).split_indices(test, seed, sealed)


def indices(asked: DataRequest) -> np.ndarray:
    """Where the images of a part stand in the whole data set."""
    classes = tuple(asked.classes or ())
    if asked.part == "all" and not asked.sealed:
        whole = _whole(asked.name)
        return np.arange(len(whole.only(classes) if classes else whole))
    train, test = _indices(asked.name, classes, asked.test, asked.seed, asked.sealed)
    return np.sort(np.concatenate([train, test])) if asked.part == "all" else train if asked.part == "train" else test


def given(asked: InputRequest, network: Network | None = None) -> Any:
    """What goes into the network: a text, one image as an array, or a photo as the network takes it."""
    if asked.text is not None:
        return asked.text
    if asked.photo is not None:
        if network is None or network.domain != "pixels" or len(network.shape) != 3:
            raise UsageError("This network does not look at photos.", "Choose squeezenet or lite0.")
        return _changed(_fitted(asked.photo, network.shape[1:]), asked, network)
    if asked.pixels is not None:
        return np.asarray(asked.pixels, dtype=np.float64)
    if asked.data is None:
        raise UsageError("No input was given.", "Draw one, or choose an image.")
    chosen = data(asked.data)
    if not 0 <= asked.index < len(chosen):
        raise UsageError(f"There are images 0 to {len(chosen) - 1}, not {asked.index}.", "Choose one of those.")
    return np.asarray(chosen.images[asked.index], dtype=np.float64)


@functools.lru_cache(maxsize=32)
def _fitted(photo: str, size: tuple[int, int]) -> np.ndarray:
    picture = uploads.picture(photo) if uploads.is_upload(photo) else datasets.photo(photo)
    return pictures.fitted(picture, size)


def _changed(picture: np.ndarray, asked: InputRequest, network: Network) -> np.ndarray:
    """Blurred, darkened, roughened, and with circles wiped out: these get the network's 0, for most the mean colour."""
    noise = np.random.default_rng(0).standard_normal(picture.shape)
    for kind in ("blur", "darkness", "noise"):
        severity = getattr(asked, kind)
        if severity:
            picture = damaged(picture, kind, severity, noise)
    if not asked.wiped:
        return picture
    empty = np.moveaxis(picture_of(network, network.encode(picture) * 0), -1, 0)
    rows, columns = np.mgrid[: picture.shape[1], : picture.shape[2]]
    out = np.zeros(picture.shape[1:], bool)
    for row, column, radius in asked.wiped:
        out |= (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
    return np.where(out, empty, picture)
