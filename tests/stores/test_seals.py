"""A sealed part is in no other part, opens once, whole, and says what a plain evaluation says; the log counts re-use."""

import itertools
import json
import os

import numpy as np
import pytest
import torch

import neuralmine as nm
from neuralmine.errors import StoreError, UsageError
from neuralmine.server import jobs, resolve
from neuralmine.server.requests import ControlRequest, DataRequest, RunRequest
from neuralmine.stores import runs, seals
from neuralmine.types import Dataset

SEALED = DataRequest(sealed=0.1)


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("NEURALMINE_HOME", str(tmp_path))
    yield
    jobs.stop_all()
    jobs._jobs.clear()


def ended(**asked):
    """A run that was trained for one epoch."""
    begun = jobs.begin(RunRequest(hidden=[4], settings={"epochs": 1, "batch": 64}, **asked))
    job = jobs.get(begun["run"])
    job.control(ControlRequest(do="play", speed="full"))
    job.thread.join(timeout=120)
    assert job.status == "ended", job.message
    return job.path


@pytest.mark.parametrize("test_from", [None, 60])
def test_the_parts_share_no_image_and_the_same_seed_seals_the_same(test_from):
    data = Dataset("d", np.zeros((100, 2)), np.arange(100) % 4, tuple("abcd"), test_from=test_from)
    train, test = data.split_indices(0.25, 3, sealed=0.1)
    sealed = data.sealed_indices(0.25, 3, 0.1)
    assert sorted([*train, *test, *sealed]) == list(range(100))
    assert len(sealed) == 10
    assert (test == data.split_indices(0.25, 3)[1]).all()
    assert (sealed == data.sealed_indices(0.25, 3, 0.1)).all()
    assert set(sealed) < set(data.sealed_indices(0.25, 3, 0.2))
    assert set(sealed) != set(data.sealed_indices(0.25, 4, 0.1))
    for share in (0.001, 0.9):
        with pytest.raises(UsageError, match="Cannot seal"):
            data.split(0.25, 3, sealed=share)


def test_the_server_gives_no_part_that_holds_a_sealed_image():
    whole = nm.datasets.load("digits")
    sealed = set(whole.sealed_indices(0.25, 0, 0.1))
    for part in ("train", "test", "all"):
        asked = DataRequest(part=part, sealed=0.1)
        there = resolve.indices(asked)
        assert not sealed & set(there)
        assert (resolve.data(asked).images == whole.images[there]).all()
    assert len(there) == len(whole) - 180


def test_the_seal_says_what_a_plain_evaluation_says_and_opens_once():
    path = ended(data=SEALED)
    whole = nm.datasets.load("digits")
    which = whole.sealed_indices(0.25, 0, 0.1)
    weights = runs.state_at(path, runs.checkpoints(path)[-1])["weights"]
    by_hand = torch.as_tensor(whole.images[which].reshape(len(which), -1), dtype=torch.float64)
    for name in dict.fromkeys(key.rpartition(".")[0] for key in weights):
        by_hand = torch.sigmoid(by_hand @ weights[f"{name}.weight"].T + weights[f"{name}.bias"])
    right = int((by_hand.argmax(1).numpy() == whole.labels[which]).sum())
    assert seals.seal(path) is None
    first = jobs.open_seal(path.name)
    assert (first["right"], first["count"], first["first"]) == (right, 180, True)
    assert first["accuracy"] == pytest.approx(right / 180)
    jobs.get(path.name).control(ControlRequest(do="rewind", to=0))  # other weights, but the seal has spoken
    again = jobs.open_seal(path.name)
    assert {**again, "words": "", "first": True} == {**first, "words": ""}
    assert "Opened before, on 2" in again["words"]
    assert "only run" in again["words"]
    second = ended(data=SEALED)
    assert "2 runs of this split have opened theirs" in jobs.open_seal(second.name)["words"]


def test_a_seal_is_written_whole_or_not_at_all(monkeypatch):
    path = ended(data=SEALED)
    with monkeypatch.context() as broken:
        broken.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(StoreError, match="No space"):
            seals.open_of(path)
    assert not list(path.glob("*seal*"))
    assert seals.open_of(path)["first"]


def test_what_has_no_seal_or_other_images_is_refused():
    path = ended()
    said = runs.about(path)
    for name in ("sealed", "classes"):  # as runs were written before there were seals
        del said["data"][name]
    for name in ("images", "fingerprint"):
        del said[name]
    (path / "run.json").write_text(json.dumps(said))
    assert len(runs.training_data(said)) == 1347
    assert seals.log()[0]["reuse"]["images"] == 450
    with pytest.raises(UsageError, match="without a sealed part"):
        seals.open_of(path)
    other = ended(data=SEALED)
    (other / "run.json").write_text(json.dumps({**runs.about(other), "fingerprint": "another"}))
    with pytest.raises(StoreError, match="not those that were sealed"):
        seals.open_of(other)


def test_a_start_that_may_know_the_sealed_images_is_refused():
    plain, kept = ended(), ended(data=SEALED)
    asked = {"hidden": [4], "data": SEALED, "settings": {"epochs": 1}}
    for start in ("64-16-10", f"run:{plain.name}"):
        with pytest.raises(UsageError, match="may have learnt"):
            jobs.begin(RunRequest(start=start, **asked))
    for start in ("64-16-10:untrained", f"run:{kept.name}"):
        assert jobs.begin(RunRequest(start=start, **asked))["run"]
    with pytest.raises(UsageError, match="may have learnt"):
        jobs.begin(RunRequest(start=f"run:{kept.name}", **{**asked, "data": DataRequest(sealed=0.2)}))


def test_the_log_says_what_the_best_of_so_many_owes_to_luck():
    def run(accuracy, name="d", ended="finished"):
        return {"data": {"name": name}, "ended": ended, "seal": None, "images": {"test": 2},
                "last": {"metrics": {"test_accuracy": accuracy}}}  # fmt: skip

    used = seals.reuse([run(0.5), run(0.5), run(1.0), run(0.0, ended="")])
    # Brute force: three nets, each right or wrong on each of two images with equal chance.
    tries = itertools.product(*[[0, 1, 1, 2]] * 3)
    assert used["lucky"] == pytest.approx(np.mean([max(three) for three in tries]) / 2)
    assert (used["runs"], used["best"], used["median"]) == (3, 1.0, 0.5)
    assert "3 runs were tested on the same 2 images" in seals.warning(used)
    assert seals.warning(seals.reuse([run(0.5)])) == ""
