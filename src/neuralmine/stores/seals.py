"""Test images are used again and again; sealed ones once: the last word on a run, and what the log owes to luck.

A run may be begun with a sealed part of its data, drawn by the split's seed, that is in no other part. Opening it tests
the run once and writes seal.json into its folder.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic import write_file
from ..errors import NeuralmineError, StoreError, UsageError
from ..experiments import judged
from ..intervals import best_of
from ..types import Dataset
from . import runs

_opening = threading.Lock()


def log() -> list[dict[str, Any]]:
    """Every run, newest first, with what its seal showed and how far its test accuracy can still be believed."""
    found = list(map(_entry, runs.listed()))
    alike: dict[Any, list[dict[str, Any]]] = {}
    for run in found:
        alike.setdefault(_split_of(run), []).append(run)
    used = {split: reuse(group) for split, group in alike.items()}
    return [{**run, "reuse": used[_split_of(run)], "warning": warning(used[_split_of(run)])} for run in found]


def _entry(summary: Mapping[str, Any]) -> dict[str, Any]:
    return {**summary, "seal": seal(runs.home() / "runs" / summary["id"])}


def parts(whole: Dataset, given: Mapping[str, Any]) -> dict[str, Any]:
    """For run.json: how many images each part has, and a fingerprint by which the sealed ones are known again.

    Raises UsageError when a part would be empty.
    """
    split = runs.split_settings(given)
    train, test = whole.split_indices(**split)
    sealed = whole.take(whole.sealed_indices(**split)) if split["sealed"] else None
    counts = {"train": len(train), "test": len(test), "sealed": 0 if sealed is None else len(sealed)}
    return {"images": counts, "fingerprint": "" if sealed is None else _fingerprint(sealed)}


def _fingerprint(data: Dataset) -> str:
    found = hashlib.sha256(np.ascontiguousarray(data.images).tobytes())
    found.update(np.asarray(data.labels, dtype="<i8").tobytes())
    return found.hexdigest()


def seal(path: Path) -> dict[str, Any] | None:
    """What the run's sealed images showed and when they were opened; None while they are sealed, or there are none."""
    try:
        return json.loads((path / "seal.json").read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path / 'seal.json'} cannot be read: {error}.", "Delete it, or the run.") from error


def open_of(path: Path) -> dict[str, Any]:
    """Test the run's network, as it is now, on its sealed images: the first time this is asked, and never again.

    Gives what seal.json then says: accuracy, right, count, loss, step and opened (seconds since 1970); `first` is
    whether that was now. Raises UsageError for a run without a seal, StoreError when the images are not the same any more.
    """
    said = runs.about(path)
    with _opening:
        known = seal(path)
        if known is not None:
            return {**known, "first": False}
        sealed = runs.sealed_data(said["data"])
        if sealed is None:
            raise UsageError(
                f"The run {path.name} was begun without a sealed part.",
                "Begin another with one; every image of this one was trained on or tested with.",
            )
        if _fingerprint(sealed) != said["fingerprint"]:
            raise StoreError(
                f"The images of {said['data']['name']} are not those that were sealed when the run began.",
                "Put the old data back; the seal stays closed.",
            )
        network, step = runs.load_network(path), runs.checkpoints(path)[-1]
        accuracy, loss = judged(network, sealed)
        found = {
            "accuracy": accuracy, "right": round(accuracy * len(sealed)), "count": len(sealed), "loss": loss,
            "step": step, "opened": time.time(),
        }  # fmt: skip
        write_file(path / "seal.json", json.dumps(found, indent=1))
        return {**found, "first": True}


def _split_of(said: Mapping[str, Any]) -> tuple[Any, ...]:
    """What runs share that are tested on the same images; their seals, of whatever size, share images too."""
    given = said["data"]
    return given["name"], tuple(given.get("classes") or ()), given.get("test", 0.25), given.get("seed", 0)


def reuse(found: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """How often one split was used, from the summaries of its runs, and what the best test accuracy owes to that.

    `runs` are those that ended with a test accuracy, `best` and `median` theirs; `lucky` is what the best of so many
    nets would show, were each truly as good as the median (exact where they err independently, at most that else);
    `opened` are the runs whose seal was opened.
    """
    every = list(found)
    ended = [run for run in every if run["ended"] and run["last"] and "test_accuracy" in run["last"]["metrics"]]
    accuracy = [run["last"]["metrics"]["test_accuracy"] for run in ended]
    said: dict[str, Any] = {
        "runs": len(ended), "opened": sum(run["seal"] is not None for run in every), "images": None, "best": None,
        "median": None, "lucky": None,
    }  # fmt: skip
    if ended:
        count, median = _test_images(every), float(np.median(accuracy))
        lucky = best_of(median, count, len(ended)) if count else None
        said |= {"images": count, "best": max(accuracy), "median": median, "lucky": lucky}
    return said


def _test_images(alike: list[Mapping[str, Any]]) -> int | None:
    """How many test images these runs share; older runs did not write it down."""
    for run in alike:
        if "images" in run:
            return run["images"]["test"]
    try:
        return len(runs.data_parts(alike[0])[1])
    except NeuralmineError:
        return None  # the data are gone; the runs are not


def warning(used: Mapping[str, Any]) -> str:
    """What `reuse` found, as a sentence for whoever chooses among the runs; "" when there is nothing to warn of."""
    if used["runs"] < 2 or used["lucky"] is None:
        return ""
    return (
        f"{used['runs']} runs were tested on the same {used['images']:,} images. Were all as good as their median, "
        f"{100 * used['median']:.1f} %, the best of them would still show {100 * used['lucky']:.1f} % by luck "
        f"(at most: nets that err on the same images gain less). The best shows {100 * used['best']:.1f} %."
    )


def words(opened: Mapping[str, Any], used: Mapping[str, Any]) -> str:
    """What an opening showed, as a sentence."""
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(opened["opened"]))
    told = f"{opened['right']} of {opened['count']} sealed images right, {100 * opened['accuracy']:.2f} %"
    if used["opened"] == 1:
        others = "It is the only run of this split that has opened its seal."
    else:
        others = f"{used['opened']} runs of this split have opened theirs: the more, the less this is a last word."
    if opened["first"]:
        return f"Opened: {told}, after update {opened['step']}. {others}"
    return f"Opened before, on {when}, after update {opened['step']}: {told}. It is not measured again. {others}"


def used_by(path: Path) -> dict[str, Any]:
    """`reuse` of the split of one run."""
    split = _split_of(runs.about(path))
    return reuse(run for run in map(_entry, runs.listed()) if _split_of(run) == split)


def check_start(given: Mapping[str, Any], start: str) -> None:
    """Raise UsageError when a network to begin from may have seen the images that are to be sealed."""
    if not given.get("sealed") or start.endswith(":untrained"):
        return
    if start.startswith("run:"):
        path = runs.find(start[4:].partition("@")[0])
        before = runs.about(path)
        held = before["data"].get("sealed", 0.0) >= given["sealed"] and _split_of(before) == _split_of({"data": given})
        if held and before.get("fingerprint") and seal(path) is None:
            return
    raise UsageError(
        f"{start} may have learnt from images that are to be sealed.",
        "Begin from random weights, or from a run on the same split whose seal holds these images and is unopened.",
    )
