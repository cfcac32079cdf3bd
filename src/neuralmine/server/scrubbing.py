"""Recordings and training runs, read step by step: one way to ask both, what was measured over all their steps, and
the part of a tensor that fits on a page."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import NeuralmineError, UnknownName, UsageError
from ..stores import recordings, runs
from ..stores.recordings import Recording
from ..tracing import trace as traced
from ..types import Dataset
from . import jobs, resolve
from .requests import DataRequest

BUDGET = 0.4  # seconds of reading before an answer; the page asks for the rest
MOST_POINTS = 1500  # of a metric's curve; more are thinned to the lowest and highest of each stretch
MOST_INPUTS = 500  # test images that a training run is followed on
MOST_UPDATES = 1000  # between two checkpoints, made again for the gradients of the last of them
HUGE = 4_000_000  # numbers of a tensor; a larger one is read and counted in parts
WINDOW = 64  # rows and columns of a tensor that are shown at once
STATISTICS = ("min", "mean", "max", "norm", "not_finite", "change", "largest_change")


class Film(Protocol):
    """What can be scrubbed. Tensors are named "weights/…", "gradients/…", "trace/…" and "output/"."""

    address: str
    path: Path

    def about(self) -> dict[str, Any]: ...
    def steps(self) -> list[int]: ...
    def stamp(self, step: int) -> Any: ...
    def metrics(self) -> dict[str, tuple[np.ndarray, np.ndarray]]: ...
    def shapes(self, step: int) -> dict[str, tuple[int, ...]]: ...
    def tensor(self, step: int, name: str) -> np.ndarray: ...
    def tensors(self, step: int) -> Iterator[tuple[str, np.ndarray]]: ...
    def numbers(self, step: int, names: Sequence[str], place: tuple[int, ...]) -> dict[str, float]: ...
    def inputs(self) -> np.ndarray | None: ...
    def labels(self) -> np.ndarray | None: ...
    def rates(self, step: int) -> dict[str, float]: ...


class Watched:
    """A recording of nm.watch."""

    def __init__(self, recording: Recording) -> None:
        self.recording, self.path, self.address = recording, recording.path, str(recording.path)
        self._batch: tuple[np.ndarray | None, np.ndarray | None] | None = None
        if recording.path.parent == runs.home() / "recordings":
            self.address = recording.path.name

    def about(self) -> dict[str, Any]:
        said, ended = self.recording.about, self.recording.ended
        live = not ended and self.recording.live
        state = ended or ("being written" if live else "cut off")
        return {
            "kind": "recording", "model": said.get("model", "model"), "parameters": said.get("parameters"),
            "created": said.get("created", 0.0), "every": said.get("every"), "state": state, "live": live,
            "classes": [], "note": "",
        }  # fmt: skip

    def steps(self) -> list[int]:
        return self.recording.steps

    def stamp(self, step: int) -> Any:
        return _stamp(step, self.path / "records")

    def metrics(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        return self.recording.metrics

    def shapes(self, step: int) -> dict[str, tuple[int, ...]]:
        return self.recording.shapes(step)

    def tensor(self, step: int, name: str) -> np.ndarray:
        return _numpy(self.recording.tensor(step, name))

    def tensors(self, step: int) -> Iterator[tuple[str, np.ndarray]]:
        return ((name, _numpy(tensor)) for name, tensor in self.recording.tensors(step))

    def numbers(self, step: int, names: Sequence[str], place: tuple[int, ...]) -> dict[str, float]:
        return self.recording.numbers(step, names, place)

    def inputs(self) -> np.ndarray | None:
        return self._given()[0]

    def labels(self) -> np.ndarray | None:
        return self._given()[1]

    def rates(self, step: int) -> dict[str, float]:
        return self.recording.rates(step)

    def _given(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        if self._batch is None:  # written once, before anything else
            batch, labels = self.recording.input, self.recording.labels
            self._batch = None if batch is None else _numpy(batch), None if labels is None else labels.numpy()
        return self._batch


class Trained:
    """A training run of the Workshop: its weights are on disk; gradients and what it makes of the test images are
    computed again, which is exact."""

    def __init__(self, path: Path) -> None:
        self.path, self.address = path, f"run:{path.name}"
        self.said = runs.about(path)
        self._made: OrderedDict[tuple[Any, str], dict[str, np.ndarray]] = OrderedDict()
        self._test: Any = None

    def about(self) -> dict[str, Any]:
        ended = runs.summary(self.path)["ended"]
        job = jobs.get(self.path.name) if self.path.parent == runs.home() / "runs" else None
        live = job is not None and job.status == "playing"
        failed = job.message if job is not None and job.status == "failed" else ""
        sizes = self.said["architecture"]["sizes"]
        return {
            "kind": "run", "model": "-".join(map(str, sizes)), "every": None, "created": self.said.get("created", 0.0),
            "parameters": sum((here + int(self.said["architecture"].get("bias", True))) * out for here, out in pairwise(sizes)),
            "state": failed or ended or ("being written" if live else "unfinished"), "live": live,
            "classes": list(self.said["classes"]),
            "note": "A training run keeps its weights. The gradients of the last update before each step and the activations on "
                    f"the test images (the first {MOST_INPUTS}) are made again from them, which is exact.",
        }  # fmt: skip

    def steps(self) -> list[int]:
        return runs.checkpoints(self.path)

    def stamp(self, step: int) -> Any:
        return _stamp(step, self.path / "checkpoints")

    def metrics(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        found: dict[str, tuple[list[int], list[float]]] = {}
        for line in runs.events(self.path):
            for name, value in line.get("metrics", {}).items():
                steps, values = found.setdefault(name, ([], []))
                steps.append(line["index"])
                values.append(value)
        return {name: (np.array(steps), np.array(values, dtype=float)) for name, (steps, values) in found.items()}

    def shapes(self, step: int) -> dict[str, tuple[int, ...]]:
        return {name: value.shape for name, value in self.tensors(step)}

    def tensor(self, step: int, name: str) -> np.ndarray:
        part = name.partition("/")[0]
        return self._part(step, "trace" if part == "output" else part)[name]

    def tensors(self, step: int) -> Iterator[tuple[str, np.ndarray]]:
        for part in ("weights", "gradients", "trace"):
            yield from self._part(step, part).items()

    def numbers(self, step: int, names: Sequence[str], place: tuple[int, ...]) -> dict[str, float]:
        parts = {name: self._part(step, name.partition("/")[0]) for name in names}
        return {name: float(part[name][place]) for name, part in parts.items() if name in part}

    def inputs(self) -> np.ndarray | None:
        return self._data()[0]

    def labels(self) -> np.ndarray | None:
        return self._data()[1]

    def rates(self, step: int) -> dict[str, float]:
        """Known where the step before was recorded too, and nothing but −rate × gradient moved the weights."""
        if step - 1 not in self.steps():
            return {}
        settings = runs.settings_at(self.path, step - 1)
        # A run that broke down was given its last good weights back.
        broke = any(
            line.get("ended", "finished") != "finished" and line["index"] == step for line in runs.events(self.path)
        )
        plain = settings.optimizer in ("sgd", "gradient_descent") and settings.schedule == "constant"
        if broke or not plain or settings.momentum or settings.weight_decay or settings.average:
            return {}
        return {name: settings.lr for name, _ in runs.empty_network(self.path).module.named_parameters()}

    def _data(self) -> Any:
        if self._test is None:
            test = resolve.data(DataRequest(**{**self.said["data"], "part": "test"}))
            self._test = np.asarray(test.images[:MOST_INPUTS]), np.asarray(test.labels[:MOST_INPUTS])
        return self._test

    def _training_data(self) -> Dataset:
        data, only = resolve.data(DataRequest(**{**self.said["data"], "part": "train"})), self.said.get("only")
        return data if only is None else data.take(slice(only, only + 1), "one image")

    def _part(self, step: int, part: str) -> dict[str, np.ndarray]:
        """Weights, trace (with the output) or gradients of a step; the recent ones are kept."""
        key = (self.stamp(step), part)
        if key not in self._made:
            self._made[key] = {"weights": self._weights, "trace": self._trace, "gradients": self._gradients}[part](step)
            while len(self._made) > 64:
                self._made.popitem(last=False)
        self._made.move_to_end(key)
        return self._made[key]

    def _weights(self, step: int) -> dict[str, np.ndarray]:
        if step not in self.steps():
            raise UnknownName("recorded step", step, map(str, self.steps()))
        written = runs.state_at(self.path, step)["weights"]
        order = runs.empty_network(self.path).module.state_dict()  # a file keeps them by name
        return {f"weights/{name}": _numpy(written[name]) for name in order}

    def _trace(self, step: int) -> dict[str, np.ndarray]:
        network = runs.load_network(self.path, step)
        seen = traced(network, network.encode(self._data()[0]))
        found = {f"trace/{name}": np.array(activation.numpy()) for name, activation in seen.items()}
        return found | {"output/": _numpy(seen.output)}

    def _gradients(self, step: int) -> dict[str, np.ndarray]:
        before = [index for index in self.steps() if index < step]
        if not before or step - before[-1] > MOST_UPDATES:
            return {}
        gradients = runs.update_at(self.path, step, self._training_data()).gradients
        return {f"gradients/{name}": np.asarray(value) for name, value in gradients.items()}


def _stamp(step: int, folder: Path) -> tuple[int, int]:
    """A step as it lies on disk now: a run can be rewound and go another way, a folder be written anew."""
    try:
        return step, (folder / f"{step:09d}.safetensors").stat().st_mtime_ns
    except OSError:
        return step, 0


_films: OrderedDict[str, tuple[Film, Measured]] = OrderedDict()
_lock = threading.Lock()


def film(address: str) -> Film:
    """What lies at an address: a recording's name, a folder, or run:NAME. Raises StoreError, UnknownName, UsageError."""
    return _opened(address)[0]


def measured(address: str) -> Measured:
    return _opened(address)[1]


def _opened(address: str) -> tuple[Film, Measured]:
    if not address.strip():
        raise UsageError("No recording was named.", "Choose one of the list, or give a folder.")
    path = runs.find(address[4:]) if address.startswith("run:") else recordings.load_recording(address).path
    key = f"{path.resolve()} {(path / 'run.json').stat().st_mtime_ns}"  # a folder can be emptied and written anew
    with _lock:
        if key not in _films:
            found = Trained(path) if _is_run(path) else Watched(Recording(path))
            _films[key] = found, Measured(found)
            while len(_films) > 8:
                _films.popitem(last=False)
        _films.move_to_end(key)
        return _films[key]


def _is_run(path: Path) -> bool:
    return "architecture" in Recording(path).about


def listed() -> list[dict[str, Any]]:
    """Every recording and training run on this machine, newest first; one that cannot be read says so."""
    rows = [_row(found.path.name, found.path) for found in recordings.listed()]
    rows += [_row(f"run:{path.name}", path) for path in runs.folders()]
    return sorted(rows, key=lambda row: row["created"], reverse=True)


def _row(address: str, path: Path) -> dict[str, Any]:
    try:
        opened = film(address)
        steps = opened.steps()
        return {
            "address": address, **opened.about(), "steps": len(steps), "last": steps[-1] if steps else None,
            "bytes": Recording(path).size, "trouble": "",
        }  # fmt: skip
    except NeuralmineError as error:
        return {
            "address": address, "kind": "run" if address.startswith("run:") else "recording", "model": path.name,
            "created": path.stat().st_mtime if path.exists() else 0.0, "steps": 0, "last": None, "bytes": 0,
            "state": "cannot be read", "live": False, "trouble": str(error),
        }  # fmt: skip


class Measured:
    """Figures of every tensor at every step, read once, a stretch at a time: a large recording takes many answers."""

    def __init__(self, of: Film) -> None:
        self.film = of
        self.figures: dict[Any, dict[str, tuple[float, ...]]] = {}
        self.answers: dict[Any, np.ndarray | None] = {}  # the predicted class of each input
        self.broken: dict[Any, str] = {}
        self.lock = threading.Lock()
        self._last: tuple[Any, dict[str, np.ndarray]] = None, {}  # the weights of the step read last

    def go_on(self, budget: float) -> int:
        """Read on for that many seconds, one step at least; returns how many steps are read."""
        stop = time.monotonic() + budget
        with self.lock:
            keys = set(self._keys())
            for table in (self.figures, self.answers, self.broken):
                for key in [key for key in table if key not in keys]:
                    del table[key]  # gone from the disk
            before, more = None, False
            known = {self.film.stamp(step): step for step in self.film.steps()}
            for stamp, step in known.items():
                if (before, stamp) not in self.figures:
                    if more and time.monotonic() > stop:
                        break
                    more = True
                    self._read((before, stamp), step, None if before is None else known[before])
                before = stamp
            return sum(key in self.figures for key in keys)

    def _keys(self) -> list[Any]:
        """Each step as it is on disk, with the one that its change is measured from."""
        stamps = [self.film.stamp(step) for step in self.film.steps()]
        return list(zip([None, *stamps], stamps, strict=False))

    def _read(self, key: Any, step: int, before: int | None) -> None:
        figures: dict[str, tuple[float, ...]] = {}
        last, self._last = self._last, (key[1], {})
        earlier = last[1] if before is None or last[0] == key[0] else None
        try:
            for name, value in self.film.tensors(step):
                weights = name.startswith("weights/")
                change = (math.nan, math.nan)
                if weights and before is not None:
                    change = self._change(name, value, before, earlier)
                figures[name] = (*_statistics(value), *change)
                if weights and value.size <= HUGE:
                    self._last[1][name] = value
                if name == "output/":
                    self.answers[key] = _answers(value)
        except NeuralmineError as error:
            self.broken[key] = str(error)
        self.figures[key] = figures

    def _change(
        self, name: str, value: np.ndarray, before: int, kept: dict[str, np.ndarray] | None
    ) -> tuple[float, float]:
        """The norm of what was added since the step before, and its largest size."""
        try:
            earlier = kept[name] if kept is not None and name in kept else self.film.tensor(before, name)
        except (NeuralmineError, KeyError):
            return math.nan, math.nan
        if earlier.shape != value.shape:
            return math.nan, math.nan
        low, _, high, norm, odd = _statistics(value.astype(float) - earlier.astype(float))
        return (math.nan, math.nan) if odd else (norm, max(abs(low), abs(high)) if value.size else 0.0)

    def report(self) -> dict[str, Any]:
        """All figures so far: tensors × steps; what was not read, or does not exist at a step, is not a number."""
        read = self.go_on(BUDGET)
        with self.lock:
            keys = self._keys()
            steps = [stamp[0] for _, stamp in keys]
            names: dict[str, None] = {}
            for key in keys:
                names |= dict.fromkeys(name for name in self.figures.get(key, {}) if name != "output/")
            table = np.full((len(STATISTICS), len(names), len(steps)), np.nan)
            for j, key in enumerate(keys):
                found = self.figures.get(key, {})
                for i, name in enumerate(names):
                    if name in found:
                        table[:, i, j] = found[name]
            answers = [self.answers.get(key) for key in keys]
            width = max((len(row) for row in answers if row is not None), default=0)
            said = np.full((len(steps), width), -2, np.int32)  # −2: no answer was recorded, −1: it is no number
            for j, row in enumerate(answers):
                if row is not None:
                    said[j, : len(row)] = row
            broken = {str(step): self.broken[key] for step, key in zip(steps, keys, strict=False) if key in self.broken}
            return {
                "steps": np.array(steps, np.int32), "names": list(names), "read": read, "broken": broken,
                "figures": dict(zip(STATISTICS, table, strict=True)), "answers": said,
            }  # fmt: skip

    def limit(self, name: str, change: bool) -> float:
        """The largest size a tensor's numbers have at any step read so far; of the changes if asked for."""
        with self.lock:
            found = [figures[name] for figures in self.figures.values() if name in figures]
        sizes = [row[6:] if change else (abs(row[0]), abs(row[2])) for row in found]
        return max((size for row in sizes for size in row if math.isfinite(size)), default=0.0)


def _statistics(value: np.ndarray) -> tuple[float, float, float, float, float]:
    """Least, mean, largest, Euclidean norm, all of the finite numbers; and how many are not finite."""
    low, high, total, squares, count, odd = math.inf, -math.inf, 0.0, 0.0, 0, 0
    flat = value.reshape(-1)
    for start in range(0, flat.size, HUGE):  # a huge tensor is not copied whole
        part = flat[start : start + HUGE].astype(float)
        finite = part[np.isfinite(part)]
        odd += part.size - finite.size
        if finite.size:
            low, high, count = min(low, finite.min()), max(high, finite.max()), count + finite.size
            total, squares = total + finite.sum(), squares + finite @ finite
    if not count:
        return math.nan, math.nan, math.nan, math.nan, odd
    return float(low), float(total / count), float(high), math.sqrt(squares), odd


def _answers(output: np.ndarray) -> np.ndarray | None:
    """The class each input gets: the place of its largest output; −1 where an output is not a number."""
    if output.ndim != 2 or output.shape[1] < 2:
        return None
    chosen = np.where(np.isnan(output), -np.inf, output).argmax(1)
    return np.where(np.isnan(output).any(1), -1, chosen).astype(np.int32)


def thinned(steps: np.ndarray, values: np.ndarray, most: int = MOST_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """A curve in at most `most` points: of each stretch its lowest and its highest, so that no spike is lost; a stretch
    with a number that is none keeps that too."""
    if len(steps) <= most:
        return steps, values
    kept = {0, len(steps) - 1}
    for part in np.array_split(np.arange(len(steps)), most // 3):
        finite = part[np.isfinite(values[part])]
        if len(finite):
            kept |= {int(finite[values[finite].argmin()]), int(finite[values[finite].argmax()])}
        if len(finite) < len(part):
            kept.add(int(part[~np.isfinite(values[part])][0]))
    places = np.array(sorted(kept))
    return steps[places], values[places]


def sheet(address: str, step: int, name: str, entry: int, change: bool, row: int, column: int) -> dict[str, Any]:
    """A tensor of a step as rows and columns: at most WINDOW of each from (`row`, `column`), the place of every cell in
    the tensor (−1 for none), and a histogram of all its numbers over the run's own scale."""
    opened, figures = film(address), measured(address)
    value = _named(opened, step, name)
    batch = opened.inputs()
    single = name.startswith("trace/") and batch is not None and value.ndim > 0 and len(value) == len(batch)
    shape = value.shape
    offset = 0
    if single:
        if not 0 <= entry < len(value):
            raise UsageError(f"There are inputs 0 to {len(value) - 1}, not {entry}.", "Choose one of those.")
        offset = entry * math.prod(shape[1:])
        shape, value = shape[1:], value[entry]
    earlier = _step_before(opened, step)
    if change:
        if not name.startswith("weights/"):
            raise UsageError("Changes are measured for weights.", "Look at the values.")
        if earlier is None:
            raise UsageError("Nothing was recorded before this step.", "Choose a later one.")
        was = _named(opened, earlier, name)
        if was.shape != value.shape:
            raise UsageError(f"{name} had another shape at step {earlier}.", "Look at its values.")
        value = value.astype(float) - was.astype(float)
    limit = max(figures.limit(name, change), *_sizes(value))
    places, rows, columns, block = laid_out(shape, row, column, maps=single)
    cells = (
        np.where(places < 0, np.nan, value.reshape(-1)[np.maximum(places, 0)].astype(float))
        if value.size
        else places * np.nan
    )
    counts, edges = _histogram(value, limit)
    low, mean, high, norm, odd = _statistics(value)
    return {
        "cells": cells, "places": np.where(places < 0, -1, places + offset).astype(np.float64), "rows": rows,
        "columns": columns, "block": block, "row": min(row, max(0, rows - 1)), "column": min(column, max(0, columns - 1)),
        "shape": list(shape), "limit": limit, "counts": counts, "edges": edges, "min": low, "mean": mean, "max": high,
        "norm": norm, "not_finite": odd, "before": earlier, "inputs": len(batch) if single and batch is not None else 0,
    }  # fmt: skip


def _sizes(value: np.ndarray) -> tuple[float, float]:
    low, _, high, _, _ = _statistics(value)
    return (abs(low), abs(high)) if math.isfinite(low) else (0.0, 0.0)


def laid_out(
    shape: tuple[int, ...], row: int, column: int, maps: bool = False
) -> tuple[np.ndarray, int, int, list[int]]:
    """Where each cell of a window on a tensor lies in it, flat; the rows and columns of the whole, and of one block.

    A vector is wrapped; a kernel o × i × h × w stands in row o and column i as a block of h × w; `maps` c × h × w stand
    side by side in a square.
    """
    if len(shape) <= 1:
        count = shape[0] if shape else 1
        columns = min(count, WINDOW) or 1
        rows, block = -(-count // columns), [1, 1]
    elif len(shape) == 2:
        (rows, columns), block = shape, [1, 1]
    elif len(shape) == 3 and maps:
        across = math.ceil(math.sqrt(shape[0]))
        block = [shape[1], shape[2]]
        rows, columns = -(-shape[0] // across) * shape[1], across * shape[2]
    else:
        block = [math.prod(shape[2:-1]), shape[-1]]
        rows, columns = shape[0] * block[0], shape[1] * block[1]
    r = np.arange(min(max(row, 0), max(rows - 1, 0)), min(max(row, 0) + WINDOW, rows))[:, None]
    c = np.arange(min(max(column, 0), max(columns - 1, 0)), min(max(column, 0) + WINDOW, columns))[None]
    if len(shape) <= 2:
        places = r * columns + c
        return np.where(places < math.prod(shape), places, -1), rows, columns, block
    (high, wide), inside = block, (r % max(block[0], 1)) * block[1] + c % max(block[1], 1)
    if len(shape) == 3 and maps:
        which = (r // high) * (columns // wide) + c // wide
        return np.where(which < shape[0], which * high * wide + inside, -1), rows, columns, block
    return ((r // max(high, 1)) * shape[1] + c // max(wide, 1)) * high * wide + inside, rows, columns, block


def _histogram(value: np.ndarray, limit: float) -> tuple[np.ndarray, np.ndarray]:
    edges = np.linspace(-(limit or 1), limit or 1, 42)
    counts = np.zeros(41)
    flat = value.reshape(-1)
    for start in range(0, flat.size, HUGE):
        part = flat[start : start + HUGE].astype(float)
        counts += np.histogram(part[np.isfinite(part)], edges)[0]
    return counts, edges


def cell(address: str, step: int, name: str, index: int) -> dict[str, Any]:
    """One number of a tensor: where it stands, its value at every recorded step, and, for a weight, its gradients, and
    what plain SGD makes of the last one where that is known."""
    opened = film(address)
    value = _named(opened, step, name)
    if not 0 <= index < value.size:
        raise UsageError(f"{name} has numbers 0 to {value.size - 1}, not {index}.", "Choose one of those.")
    place = tuple(int(i) for i in np.unravel_index(index, value.shape))
    steps = opened.steps()
    part, _, rest = name.partition("/")
    gradient = f"gradients/{rest}"
    names = [name, gradient] if part == "weights" else [name]
    read = [_numbers(opened, at, names, place) for at in steps]
    curves = {key: np.array([numbers.get(key, np.nan) for numbers in read]) for key in names}
    found = {"place": list(place), "steps": np.array(steps, np.int32), "values": curves[name]}
    if part != "weights":
        return found
    here = steps.index(step)
    found["gradients"] = curves[gradient]
    known = opened.rates(step) if here and steps[here - 1] == step - 1 else {}
    if rest in known and np.isfinite(curves[gradient][here]) and np.isfinite(curves[name][here - 1]):
        change = curves[name][here] - curves[name][here - 1]
        found |= {
            "rate": known[rest],
            "change": float(change),
            "expected": float(-known[rest] * curves[gradient][here]),
        }
    return found


def _numbers(opened: Film, step: int, names: Sequence[str], place: tuple[int, ...]) -> dict[str, float]:
    try:
        return opened.numbers(step, names, place)
    except NeuralmineError:
        return {}  # a broken record is a hole in the curve


def _named(opened: Film, step: int, name: str) -> np.ndarray:
    if step not in opened.steps():
        raise UnknownName("recorded step", step, map(str, opened.steps()))
    known = opened.shapes(step)
    if name not in known:
        raise UnknownName("tensor of this step", name, known)
    return opened.tensor(step, name)


def _step_before(opened: Film, step: int) -> int | None:
    return max((known for known in opened.steps() if known < step), default=None)


def pictures(address: str, indices: list[int]) -> dict[str, Any]:
    """Inputs of the traced batch as pictures, from its least number to its largest; rows 0 when they are none."""
    batch = film(address).inputs()
    if batch is None:
        raise UsageError("No batch was traced.", "Record with nm.watch(model, trace=batch).")
    wrong = [index for index in indices if not 0 <= index < len(batch)]
    if wrong:
        raise UsageError(f"There are inputs 0 to {len(batch) - 1}, not {wrong[0]}.", "Choose one of those.")
    shaped = _as_pictures(batch)
    if shaped is None:
        return {"rows": 0, "columns": 0, "pixels": np.zeros((len(indices), 0)), "colour": False}
    chosen = shaped[indices].astype(float)
    step = -(-max(chosen.shape[1:3]) // 96)  # a thumbnail
    chosen = chosen[:, ::step, ::step]
    finite = batch[np.isfinite(batch)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    scaled = np.clip((chosen - low) / ((high - low) or 1.0), 0, 1)
    return {
        "rows": scaled.shape[1], "columns": scaled.shape[2], "pixels": scaled.reshape(len(indices), -1),
        "colour": shaped.ndim == 4, "least": low, "largest": high,
    }  # fmt: skip


def _as_pictures(batch: np.ndarray) -> np.ndarray | None:
    """b × rows × columns (× 3), if that is what the inputs are; a vector of 49 numbers or more may be a square."""
    if batch.ndim == 4 and batch.shape[1] == 3:
        return np.moveaxis(batch, 1, -1)
    if batch.ndim == 4 and batch.shape[1] == 1:
        return batch[:, 0]
    if batch.ndim == 3 and min(batch.shape[1:]) > 1:
        return batch
    side = math.isqrt(batch.shape[1]) if batch.ndim == 2 else 0
    return batch.reshape(len(batch), side, side) if side >= 7 and side * side == batch.shape[1] else None


def _numpy(tensor: Any) -> np.ndarray:
    """On the CPU, as it is; kinds that numpy lacks become float32, complex numbers their size."""
    import torch

    if tensor.is_complex():
        tensor = tensor.abs()
    if tensor.dtype not in (torch.float32, torch.float64, torch.float16) and tensor.is_floating_point():
        tensor = tensor.float()
    return tensor.detach().cpu().numpy()
