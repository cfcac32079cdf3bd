"""Recordings of somebody's own training loop: a folder each, append-only, whole after a kill at any moment.

run.json                         what was watched; written once, whole
input.safetensors                the batch that is traced, and its labels, if they were given; written once, whole
events.jsonl                     one line a step, as it is taken: its index and metrics (a diverged loss stands there as
                                 NaN or Infinity); at last how it ended. A torn last line is dropped
records/000000050.safetensors    weights, gradients and trace after that step; each written whole, in order

A step was recorded if and only if its file is there: nothing else has to agree with it.
"""

from __future__ import annotations

import errno
import io
import json
import os
import platform
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..atomic import write_file
from ..errors import StoreError, UnknownName, UsageError
from ..types import Activation, Layer
from .runs import home

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_PARTS = ("weights", "gradients", "trace", "output")


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """What was recorded after one step, on the CPU, to the bit.

    `weights` are the parameters and buffers after the step. `gradients` are what lay in `.grad` then: those the step
    was taken with, unless the loop had cleared them. `trace` maps a layer to its Activation on the traced batch. `rates`
    are the learning rates of the parameters that plain SGD moves, each by −rate × gradient; empty when not known.
    """

    index: int
    metrics: Mapping[str, float]
    weights: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor]
    trace: Mapping[str, Activation] = field(default_factory=dict)
    output: Tensor | None = None
    rates: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording on disk, also one that is still being written: every question is answered from the disk as it is.

    >>> import tempfile, torch, neuralmine as nm
    >>> model = torch.nn.Linear(2, 1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with nm.watch(model, every=2, folder=folder) as run:
    ...         for loss in (3.0, 2.0, 1.0):
    ...             run.step(loss=loss)
    ...     recording = nm.load_recording(folder)
    ...     recording.steps, recording.metrics["loss"][1].tolist(), list(recording.at(2).weights), recording.ended
    ([0, 2, 3], [3.0, 2.0, 1.0], ['weight', 'bias'], 'done')
    """

    path: Path

    @property
    def about(self) -> dict[str, Any]:
        """What run.json says. Raises StoreError when it cannot be read."""
        try:
            return json.loads((self.path / "run.json").read_text())
        except (OSError, ValueError) as error:
            raise StoreError(
                f"{self.path} holds no recording: {error}.", "Choose a folder that watch wrote."
            ) from error

    @property
    def steps(self) -> list[int]:
        """The steps whose weights were recorded, in order; 0 is before the first."""
        return sorted(int(file.stem) for file in (self.path / "records").glob("*.safetensors") if file.stem.isdigit())

    @property
    def events(self) -> list[dict[str, Any]]:
        """All whole lines of events.jsonl."""
        file = self.path / "events.jsonl"
        lines = []
        for line in file.read_text(errors="replace").splitlines() if file.exists() else ():
            try:
                lines.append(json.loads(line))
            except ValueError:
                continue  # torn off when the process was killed, or the disk was full
        return lines

    @property
    def metrics(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Each metric's steps and values: every step that was taken, not only those whose weights were recorded."""
        found: dict[str, tuple[list[int], list[float]]] = {}
        for line in self.events:
            for name, value in line.get("metrics", {}).items():
                steps, values = found.setdefault(name, ([], []))
                steps.append(line["index"])
                values.append(value)
        return {name: (np.array(steps), np.array(values, dtype=float)) for name, (steps, values) in found.items()}

    @property
    def ended(self) -> str:
        """How it ended: "done" or the error that left the block; "" when it goes on, or was killed."""
        return next((line["ended"] for line in reversed(self.events) if "ended" in line), "")

    @property
    def live(self) -> bool:
        """Whether it is still being written: it has not ended, and the process that writes it runs on this machine."""
        about = self.about
        if self.ended or about.get("host") != platform.node() or not isinstance(about.get("process"), int):
            return False
        try:
            os.kill(about["process"], 0)
        except ProcessLookupError:
            return False
        except OSError:
            return True  # it runs, and is somebody else's
        return True

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())

    @property
    def input(self) -> Tensor | None:
        """The traced batch, encoded; None when none was given."""
        return self._given("input")

    @property
    def labels(self) -> Tensor | None:
        """The traced batch's labels; None when none were given."""
        return self._given("labels")

    def _given(self, name: str) -> Tensor | None:
        file = self.path / "input.safetensors"
        return _read(file)[1].get(name) if file.exists() else None

    def at(self, step: int) -> Recorded:
        """What was recorded after that step. Raises UnknownName for one that was not, StoreError for a broken file."""
        file = _file(self.path, step)
        if not file.exists():
            raise UnknownName("recorded step", step, map(str, self.steps))
        said, tensors = _read(file)
        parts: dict[str, dict[str, Tensor]] = {part: {} for part in _PARTS}
        for name in said["order"]:
            part, _, rest = name.partition("/")
            parts[part][rest] = tensors[name]
        trace = {}
        for name, kind, dims, shape, parameters in said["layers"]:
            layer = Layer(name, kind, dims, tuple(shape), parameters)
            trace[name] = Activation(layer, partial(parts["trace"].__getitem__, name))
        return Recorded(
            said["index"], said["metrics"], parts["weights"], parts["gradients"], trace, parts["output"].get(""),
            said.get("rates", {}),
        )  # fmt: skip

    def shapes(self, step: int) -> dict[str, tuple[int, ...]]:
        """What was recorded after that step, without reading it: "weights/…", "gradients/…", "trace/…", "output/".

        Raises StoreError for a broken file.
        """
        with _opening(_file(self.path, step)) as opened:
            order = json.loads(opened.metadata()["about"])["order"]
            return {name: tuple(opened.get_slice(name).get_shape()) for name in order}

    def tensors(self, step: int) -> Iterator[tuple[str, Tensor]]:
        """The tensors of `shapes`, one at a time. Raises StoreError for a broken file."""
        with _opening(_file(self.path, step)) as opened:
            for name in json.loads(opened.metadata()["about"])["order"]:
                yield name, opened.get_tensor(name)

    def tensor(self, step: int, name: str) -> Tensor:
        """One tensor of `shapes`; the rest of the file is not read. Raises StoreError."""
        with _opening(_file(self.path, step)) as opened:
            return opened.get_tensor(name)

    def numbers(self, step: int, names: Iterable[str], place: tuple[int, ...]) -> dict[str, float]:
        """The number at one place of those tensors that have it; nothing else is read. Raises StoreError."""
        found = {}
        with _opening(_file(self.path, step)) as opened:
            known = set(opened.keys())
            for name in names:
                shape = opened.get_slice(name).get_shape() if name in known else None
                if shape is None or len(shape) != len(place) or any(i >= n for i, n in zip(place, shape, strict=True)):
                    continue
                window = tuple(slice(i, i + 1) for i in place)
                found[name] = float(opened.get_slice(name)[window] if place else opened.get_tensor(name))
        return found

    def rates(self, step: int) -> dict[str, float]:
        """The learning rates of plain SGD at that step (see Recorded). Raises StoreError."""
        with _opening(_file(self.path, step)) as opened:
            return json.loads(opened.metadata()["about"]).get("rates", {})

    def network_at(self, step: int, model: torch.nn.Module) -> torch.nn.Module:
        """Load the weights and buffers after that step into `model`, and return it.

        Raises UnknownName for a step that was not recorded, UsageError for a model of another shape.
        """
        from torch.nn.modules.module import _EXTRA_STATE_KEY_SUFFIX

        try:
            wrong = model.load_state_dict(dict(self.at(step).weights), strict=False)
        except RuntimeError as error:
            raise UsageError(
                f"These weights do not fit the model: {error}", "Give a model of the same shape."
            ) from None
        missing = [name for name in wrong.missing_keys if not name.endswith(_EXTRA_STATE_KEY_SUFFIX)]
        if missing or wrong.unexpected_keys:
            raise UsageError(
                f"The model has other weights: {', '.join([*missing, *wrong.unexpected_keys][:5])}.",
                f"Give a model built as the recorded {self.about['model']} was.",
            )
        return model


def load_recording(path: Path | str) -> Recording:
    """The recording in that folder, or of that name in the folder of recordings. Raises StoreError when there is none.

    >>> load_recording("/nowhere")
    Traceback (most recent call last):
    neuralmine.errors.StoreError: /nowhere holds no recording: ... Choose a folder that watch wrote.
    """
    named = home() / "recordings" / path
    recording = Recording(named if not Path(path).exists() and named.exists() else Path(path))
    recording.about  # noqa: B018 (it says what is wrong)
    return recording


def listed() -> list[Recording]:
    """Every recording in the folder of recordings, newest first."""
    folder = home() / "recordings"
    names = [path for path in folder.iterdir() if (path / "run.json").is_file()] if folder.is_dir() else []
    return [Recording(path) for path in sorted(names, reverse=True)]


def create(
    about: Mapping[str, Any],
    folder: Path | str | None = None,
    batch: Tensor | None = None,
    labels: Tensor | None = None,
) -> Path:
    """Begin a recording in an empty `folder`, or a new one of its own. Returns the folder.

    Raises StoreError when the place cannot be written or holds something already.
    """
    name = time.strftime("%Y%m%d-%H%M%S-") + uuid.uuid4().hex[:6]
    path = home() / "recordings" / name if folder is None else Path(folder)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise StoreError(f"{path} holds something already.", "Give an empty or a new folder.")
    if batch is not None:
        given = {"input": batch} if labels is None else {"input": batch, "labels": labels}
        write_file(path / "input.safetensors", _packed({}, given))
    writer = {"id": path.name, "created": time.time(), "process": os.getpid(), "host": platform.node()}
    write_file(path / "run.json", json.dumps({**writer, **about}, indent=1))
    return path


def opened(path: Path) -> io.FileIO:
    """The events of a recording, to be appended to. Raises StoreError when they cannot be."""
    try:
        return (path / "events.jsonl").open("ab", buffering=0)
    except OSError as error:
        raise _unwritable(path, error) from error


def append(file: io.FileIO, lines: Iterable[Mapping[str, Any]]) -> None:
    """Add lines to the events: handed to the system at once, so no kill of the process loses them.

    Raises StoreError when the disk is full.
    """
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    try:
        if file.write(data) != len(data):
            raise OSError(errno.ENOSPC, "No space left on device")  # a nearly full disk takes a part, and says so
    except OSError as error:
        raise _unwritable(Path(file.name).parent, error) from error


def write(path: Path, taken: Recorded) -> Path:
    """Write a step's record, whole or not at all.

    Raises StoreError when it cannot be written, also because tensors share their memory.
    """
    tensors = {f"weights/{name}": tensor for name, tensor in taken.weights.items()}
    tensors |= {f"gradients/{name}": tensor for name, tensor in taken.gradients.items()}
    tensors |= {f"trace/{name}": activation.value for name, activation in taken.trace.items()}
    if taken.output is not None:
        tensors["output/"] = taken.output
    layers = [(a.layer.name, a.layer.kind, a.dims, a.layer.shape, a.layer.parameters) for a in taken.trace.values()]
    about = {
        "index": taken.index, "metrics": dict(taken.metrics), "layers": layers, "rates": dict(taken.rates)
    }  # fmt: skip
    return write_file(_file(path, taken.index), _packed(about, tensors))


def _file(path: Path, step: int) -> Path:
    return path / "records" / f"{step:09d}.safetensors"


def _packed(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bytes:
    from safetensors.torch import save

    try:
        # The format keeps tensors by size, so their order is said apart.
        return save(
            {name: t.contiguous() for name, t in tensors.items()},
            {"about": json.dumps({**about, "order": list(tensors)})},
        )
    except (ValueError, KeyError, RuntimeError) as error:
        raise StoreError(f"These tensors cannot be written: {error}.", "Watch a part of the model.") from error


@contextmanager
def _opening(file: Path) -> Iterator[Any]:
    from safetensors import safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            yield opened
    except Exception as error:
        raise StoreError(f"The record {file} cannot be read: {error}.", "Choose another step.") from error


def _read(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with _opening(file) as opened:
        return json.loads(opened.metadata()["about"]), {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)


def _unwritable(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"The recording {path.name} cannot be written: {os.strerror(error.errno) if error.errno else error}.",
        "What was recorded before is whole. Free some space, then watch again.",
    )
