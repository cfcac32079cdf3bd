"""Training runs on disk: a folder each, append-only, readable after the process was killed at any moment.

run.json               what is trained on what; written once, whole
seal.json              how it did on its sealed images, once they were opened (see seals); written once, whole
events.jsonl           one line a recorded step or change of settings; a torn last line is dropped
checkpoints/000000120.safetensors   weights, averages and the optimizer's state; each written whole
"""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from .. import datasets
from ..architectures import build
from ..atomic import write_file
from ..errors import StoreError, UnknownName
from ..networks.torch_module import network_of
from ..training import Settings, train
from ..types import Dataset, Network, Source, Step


def home() -> Path:
    """Where Neuralmine keeps its files: NEURALMINE_HOME, else the user's data folder."""
    named = os.environ.get("NEURALMINE_HOME")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "neuralmine"


def create(about: Mapping[str, Any], folder: Path | None = None) -> Path:
    """Begin a run: `about` holds data, split, architecture, loss, classes, shape and settings. Returns its folder.

    Raises StoreError when the place cannot be written.
    """
    name = time.strftime("%Y%m%d-%H%M%S-") + uuid.uuid4().hex[:6]
    path = (folder or home() / "runs") / name
    write_file(path / "run.json", json.dumps({"id": name, "created": time.time(), **about}, indent=1))
    return path


def find(name: str) -> Path:
    """The folder of the run of that name. Raises UnknownName."""
    path = home() / "runs" / name
    if os.sep in name or name.startswith(".") or not (path / "run.json").is_file():
        raise UnknownName("run", name, [p.name for p in folders()])
    return path


def listed() -> list[dict[str, Any]]:
    """Every run, newest first: what run.json says, its last recorded step and how it ended ("" when it did not)."""
    return [summary(path) for path in sorted(folders(), reverse=True)]


def summary(path: Path) -> dict[str, Any]:
    lines = events(path)
    steps = [line for line in lines if "metrics" in line]
    ended = next((line["ended"] for line in reversed(lines) if "ended" in line), "")
    if ended and lines and "ended" not in lines[-1]:
        ended = ""  # it went on after that end
    return {**about(path), "last": steps[-1] if steps else None, "ended": ended}


def about(path: Path) -> dict[str, Any]:
    """What run.json says. Raises StoreError when it cannot be read."""
    try:
        return json.loads((path / "run.json").read_text())
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} holds no run: {error}.", "Choose a folder that a training run wrote.") from error


def append(path: Path, event: Mapping[str, Any]) -> None:
    """Add one line to the run's events. Raises StoreError when the disk is full or the folder is gone."""
    try:
        with (path / "events.jsonl").open("ab+") as file:
            # What a kill or a full disk tore off must not spoil the line that comes after it.
            torn = file.seek(0, os.SEEK_END) and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n"
            file.write((b"\n" if torn else b"") + json.dumps(event).encode() + b"\n")
    except OSError as error:
        raise StoreError(
            f"The run {path.name} cannot be written: {error.strerror or error}.",
            "Free some space, then resume the run.",
        ) from error


def events(path: Path) -> list[dict[str, Any]]:
    """All whole lines of the run's events."""
    file = path / "events.jsonl"
    if not file.exists():
        return []
    lines = []
    for line in file.read_text().splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue  # torn off when the process was killed
    return lines


def record(path: Path, step: Step) -> dict[str, Any]:
    """Write a step's checkpoint, then its line; returns the line."""
    save_state(path, step.capture())
    line = {
        "index": step.index,
        "epoch": step.epoch,
        "metrics": dict(step.metrics),
        "trouble": [{"name": t.name, "what": t.what, "why": t.why, "advice": t.advice} for t in step.trouble],
        "detail": _plain(step.detail),
    }
    append(path, line)
    return line


def _plain(detail: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(dict(detail), default=list))


def save_state(path: Path, state: Mapping[str, Any]) -> Path:
    """Write what `Step.capture` gave, whole: tensors as safetensors, the rest as its metadata."""
    from safetensors.torch import save

    tensors = {f"weights/{name}": tensor for name, tensor in state["weights"].items()}
    tensors |= {f"averaged/{name}": tensor for name, tensor in state["averaged"].items()}
    tensors |= {f"best/{name}": tensor for name, tensor in state["best"].items()}
    plain: dict[str, Any] = {
        key: state[key] for key in ("index", "epoch", "seen", "first_loss", "settings", "best_loss", "best_epoch")
    }
    optimizer = state["optimizer"]
    numbers: dict[str, dict[str, Any]] = {}
    for place, entries in optimizer.get("state", {}).items():
        for name, value in entries.items():
            if hasattr(value, "shape"):
                tensors[f"optimizer/{place}/{name}"] = value
            else:
                numbers.setdefault(str(place), {})[name] = value
    plain["optimizer"] = {"groups": optimizer.get("param_groups", []), "numbers": numbers} if optimizer else {}
    data = save({name: t.contiguous() for name, t in tensors.items()}, {"state": json.dumps(plain)})
    return write_file(path / "checkpoints" / f"{state['index']:09d}.safetensors", data)


def checkpoints(path: Path) -> list[int]:
    """The steps whose weights were written, in order."""
    return sorted(int(file.stem) for file in (path / "checkpoints").glob("*.safetensors") if file.stem.isdigit())


def state_at(path: Path, index: int) -> dict[str, Any]:
    """The written state of a step, as `train(start=…)` takes it."""
    from safetensors import safe_open

    file = path / "checkpoints" / f"{index:09d}.safetensors"
    try:
        with safe_open(file, framework="pt") as opened:
            plain = json.loads(opened.metadata()["state"])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
    except Exception as error:
        raise StoreError(f"The checkpoint {file} cannot be read: {error}.", "Rewind to another step.") from error
    state: dict[str, Any] = {**plain, "weights": {}, "averaged": {}, "best": {}, "optimizer": {}}
    entries: dict[int, dict[str, Any]] = {
        int(place): dict(values) for place, values in plain["optimizer"].get("numbers", {}).items()
    }
    for name, tensor in tensors.items():
        part, _, rest = name.partition("/")
        if part == "optimizer":
            place, _, key = rest.partition("/")
            entries.setdefault(int(place), {})[key] = tensor
        else:
            state[part][rest] = tensor
    if plain["optimizer"]:
        state["optimizer"] = {"state": entries, "param_groups": plain["optimizer"]["groups"]}
    return state


def load_network(path: Path | str, step: int | None = None) -> Network:
    """The network of a run as it was after update `step` (the last recorded one when not given).

    A step between two checkpoints is computed again from the earlier one: training is exact, so it is the same.
    Raises StoreError when nothing was recorded, UnknownName for a step beyond the last.
    """
    path = Path(path)
    known = checkpoints(path)
    if not known:
        raise StoreError(f"The run {path.name} has recorded no step yet.", "Wait for its first step, or discard it.")
    step = known[-1] if step is None else step
    if not 0 <= step <= known[-1]:
        raise UnknownName("step", step, [str(known[0]), str(known[-1])])
    nearest = max(index for index in known if index <= step)
    network = empty_network(path)
    state = state_at(path, nearest)
    network.module.load_state_dict(state["weights"])
    if nearest < step:
        _replay(path, network, state, step)
    return network


def update_at(path: Path, step: int, data: Dataset | None = None) -> Step:
    """The update that led to `step`, made again from the checkpoint before it: its gradients, to the bit.

    `data` is the run's training data, where the caller has it. Raises UnknownName for a step without a checkpoint before it.
    """
    before = [index for index in checkpoints(path) if index < step]
    if not before:
        raise UnknownName("update", step, map(str, checkpoints(path)[1:]))
    network = empty_network(path)
    return _replay(path, network, state_at(path, before[-1]), step, ("gradients",), data)


def _replay(
    path: Path,
    network: Network,
    state: dict[str, Any],
    step: int,
    keep: tuple[Literal["gradients"], ...] = (),
    data: Dataset | None = None,
) -> Step:
    data = training_data(about(path)) if data is None else data
    changes = [e for e in events(path) if "changed" in e and state["index"] <= e["index"] < step]
    settings = dict(state["settings"])
    for event in changes:
        if event["index"] == state["index"]:  # made right after the checkpoint was written
            settings |= event["changed"]
    if any(settings[name] != state["settings"][name] for name in ("optimizer", "momentum", "weight_decay")):
        state = {**state, "optimizer": {}}  # such a change begins with a new optimizer
    settings |= {"pace": "update", "evaluate": 0}
    training = train(network, data, record=keep, start=state, **settings)
    change = None
    while True:
        now = training.send(change)
        if now.index >= step:
            training.close()
            return now
        due = [e["changed"] for e in changes if e["index"] == now.index]
        change = {**due[-1], "pace": "update"} if due else None


def empty_network(path: Path) -> Network:
    """The run's network before any training."""
    said = about(path)
    return network_of(
        build(said["architecture"]),
        shape=said["shape"],
        labels=said["classes"],
        loss=said["loss"],
        source=Source(f"the run {path.name}", trained_on=said["data"]["name"]),
        name=f"run {path.name}",
    )


def data_parts(said: Mapping[str, Any]) -> tuple[Dataset, Dataset]:
    """The training and the test part of the data a run or network names."""
    given = said["data"]
    data = _whole_data(given)
    return data.split(**split_settings(given))


def sealed_data(given: Mapping[str, Any]) -> Dataset | None:
    """The images that a run on these data never sees: not trained on, not watched, not tested; None when it has none."""
    if not given.get("sealed"):
        return None
    data = _whole_data(given)
    return data.take(data.sealed_indices(**split_settings(given)), f"{data.name} sealed")


def _whole_data(given: Mapping[str, Any]) -> Dataset:
    data = datasets.load(given["name"])
    return data.only(tuple(given["classes"])) if given.get("classes") else data


def split_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of `Dataset.split`; runs from before there were seals have none."""
    return {"test": given.get("test", 0.25), "seed": given.get("seed", 0), "sealed": given.get("sealed", 0.0)}


def training_data(said: Mapping[str, Any]) -> Dataset:
    """The images a run is trained on: the training part, or only one of it."""
    data = data_parts(said)[0]
    only = said.get("only")
    return data if only is None else data.take(slice(only, only + 1), "one image")


def settings_at(path: Path, step: int | None = None) -> Settings:
    """The settings with which the run would go on (after `step`): those it began with and every change since."""
    settings = Settings().changed(**about(path)["settings"])
    for event in events(path):
        if step is None or event["index"] <= step:
            settings = settings.changed(**event.get("changed", {}))
    return settings


def cut(path: Path, index: int) -> None:
    """Forget everything after a step, so that training can go on from there."""
    kept = [line for line in events(path) if line.get("index", 0) <= index and "ended" not in line]
    write_file(path / "events.jsonl", "".join(json.dumps(line) + "\n" for line in kept))
    for later in checkpoints(path):
        if later > index:
            (path / "checkpoints" / f"{later:09d}.safetensors").unlink(missing_ok=True)


def discard(path: Path) -> None:
    """Delete a run. Its run.json goes first, so that a half-deleted run is none."""
    about(path)
    (path / "run.json").unlink()
    shutil.rmtree(path, ignore_errors=True)


def folders() -> list[Path]:
    """The folders of all runs on this machine."""
    folder = home() / "runs"
    return [path for path in folder.iterdir() if (path / "run.json").is_file()] if folder.is_dir() else []
