"""A run killed at any moment leaves no broken file, and goes on or goes away."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from neuralmine import atomic
from neuralmine.errors import StoreError, UnknownName
from neuralmine.stores import runs

TRAIN = """
from neuralmine.server import jobs
from neuralmine.server.requests import ControlRequest, RunRequest
begun = jobs.begin(RunRequest(hidden=[8], settings={"epochs": 100000, "batch": 100}))
jobs.get(begun["run"]).control(ControlRequest(do="play", speed="full"))
print(begun["run"], flush=True)
jobs.get(begun["run"]).thread.join()
"""


def test_a_run_killed_at_random_moments_stays_whole_and_can_go_on(tmp_path):
    dice = random.Random(0)
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", TRAIN], stdout=subprocess.PIPE, text=True, env={**os.environ})
        name = process.stdout.readline().strip()
        time.sleep(0.3 + dice.random())
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        path = runs.find(name)
        known = runs.checkpoints(path)
        assert known
        for index in known:
            assert runs.state_at(path, index)["index"] == index
        recorded = [line["index"] for line in runs.events(path) if "metrics" in line]
        assert set(recorded) <= set(known)
        assert runs.load_network(path).module
        from neuralmine.server import jobs
        from neuralmine.server.requests import ControlRequest

        job = jobs.get(name)
        job.control(ControlRequest(do="step"))
        for _ in range(1200):
            if job.report()["latest"]["index"] == known[-1] + 1:
                break
            time.sleep(0.05)
        assert job.report()["latest"]["index"] == known[-1] + 1
        jobs.discard(name)
        with pytest.raises(UnknownName):
            runs.find(name)


def test_a_torn_last_line_is_dropped(tmp_path):
    path = runs.create({"settings": {}}, tmp_path)
    runs.append(path, {"index": 0, "metrics": {}})
    with (path / "events.jsonl").open("a") as file:
        file.write('{"index": 1, "metr')
    assert runs.events(path) == [{"index": 0, "metrics": {}}]


def test_files_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    file = atomic.write_file(tmp_path / "a.txt", "old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(StoreError, match="No space"):
        atomic.write_file(file, "new")
    with pytest.raises(StoreError, match="No space"):
        atomic.write_folder(tmp_path / "folder", {"x.txt": "new"})
    assert file.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_with_files_of_somebody_else_is_not_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.doc").write_text("years of work")
    with pytest.raises(StoreError, match="did not write"):
        atomic.write_folder(tmp_path / "mine", {"finding.json": "{}"})
    assert (tmp_path / "mine" / "thesis.doc").read_text() == "years of work"


def test_a_line_after_a_torn_one_is_whole(tmp_path):
    path = runs.create({"settings": {}}, tmp_path)
    runs.append(path, {"index": 0, "metrics": {}})
    with (path / "events.jsonl").open("a") as file:
        file.write('{"index": 1, "metr')
    runs.append(path, {"index": 1, "metrics": {}})
    assert [line["index"] for line in runs.events(path)] == [0, 1]
