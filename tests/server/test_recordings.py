"""The recordings over the wire, against the safetensors files read by hand; killed, broken, diverged, huge, disk full."""

import errno
import itertools
import json
import math
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.numpy import load_file
from torch import nn

import neuralmine as nm
from neuralmine.server import jobs, scrubbing
from neuralmine.server import recordings as routes
from neuralmine.server.app import make_app
from neuralmine.stores import runs

from .test_app import unpacked, wait


@pytest.fixture
def client():
    # Not as a context: the warm-up of the whole server would run beside every test.
    yield TestClient(make_app())
    jobs.stop_all()
    routes.stop()


def ask(client, what, address, **more):
    answer = client.post(f"/api/recordings/{what}", json={"address": str(address), **more})
    assert answer.status_code == 200, answer.text
    return unpacked(answer.content)


def figures(client, address):
    """Of all records: a slow machine takes more than one answer to read them."""
    for _ in range(100):
        found = ask(client, "figures", address)
        if found["read"] == len(found["steps"]):
            return found
    raise AssertionError("the records were not read")


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Linear(3 * 4, 4)
        self.gain = nn.Parameter(torch.tensor(1.5))

    def forward(self, x):
        return self.gain * self.head(self.norm(self.conv(x)).relu().flatten(1))


def trained(folder, steps=6, every=2, make=None, **watched):
    torch.manual_seed(0)
    model = Small()
    optimizer = (make or (lambda p: torch.optim.SGD(p, lr=0.05)))(model.parameters())
    x, y = torch.randn(10, 2, 4, 4), torch.randint(4, (10,))
    with nm.watch(model, every=every, trace=x, labels=y, optimizer=optimizer, folder=folder, **watched) as run:
        for index in range(1, steps + 1):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            run.step(loss=math.nan if index == 3 else loss, spike=math.inf if index == 4 else float(index))
    return model, x, y


def by_hand(folder, step):
    return load_file(folder / "records" / f"{step:09d}.safetensors")


def test_figures_are_those_of_the_files_read_by_hand(client, tmp_path):
    trained(tmp_path / "r")
    about = ask(client, "open", tmp_path / "r")
    assert about["steps"].tolist() == [0, 2, 4, 6]
    assert (about["state"], about["live"], about["inputs"]) == ("done", False, 10)
    assert about["metrics"]["loss"]["steps"].tolist() == [1, 2, 3, 4, 5, 6]
    assert math.isnan(about["metrics"]["loss"]["values"][2])
    assert about["metrics"]["spike"]["values"].tolist() == [1, 2, 3, math.inf, 5, 6]
    found = figures(client, tmp_path / "r")
    assert found["read"] == 4
    files = {step: by_hand(tmp_path / "r", step) for step in (0, 2, 4, 6)}
    assert set(found["names"]) == set(files[6]) - {"output/"}
    for i, name in enumerate(found["names"]):
        for j, step in enumerate((0, 2, 4, 6)):
            given = files[step].get(name)
            wanted = [math.nan] * 4 if given is None else [f(given.astype(float)) for f in (np.min, np.mean, np.max)]
            if given is not None:
                wanted.append(np.sqrt((given.astype(float) ** 2).sum()))
            seen = [found["figures"][key][i, j] for key in ("min", "mean", "max", "norm")]
            np.testing.assert_allclose(seen, wanted, rtol=1e-12, atol=1e-12)
            change = found["figures"]["change"][i, j]
            if name.startswith("weights/") and step:
                wanted = given.astype(float) - files[step - 2][name]
                assert change == pytest.approx(np.linalg.norm(wanted))
                assert found["figures"]["largest_change"][i, j] == pytest.approx(np.abs(wanted).max())
            else:
                assert math.isnan(change)
    for j, step in enumerate((0, 2, 4, 6)):
        assert found["answers"][j].tolist() == files[step]["output/"].argmax(1).tolist()


def test_records_are_read_a_stretch_at_a_time(tmp_path, monkeypatch):
    trained(tmp_path / "r")
    read = scrubbing.measured(str(tmp_path / "r"))
    assert read.go_on(-1) == 1  # always one, so that it comes to an end
    monkeypatch.setattr(scrubbing, "BUDGET", -1)
    norms = read.report()["figures"]["norm"][0]
    assert np.isfinite(norms).tolist() == [True, True, False, False]
    assert read.go_on(60) == 4


def test_every_cell_of_every_sheet_is_the_number_at_its_place(client, tmp_path):
    trained(tmp_path / "r")
    file, earlier = by_hand(tmp_path / "r", 4), by_hand(tmp_path / "r", 2)
    for name, value in file.items():
        if name == "output/":
            continue
        trace = name.startswith("trace/")
        for change in (False, True) if name.startswith("weights/") else (False,):
            found = ask(client, "sheet", tmp_path / "r", step=4, name=name, entry=7 if trace else 0, change=change)
            places = found["places"].astype(int)
            known = places >= 0
            flat = (value.astype(float) - earlier[name] if change else value).reshape(-1)
            np.testing.assert_array_equal(found["cells"][known], flat[places[known]])
            part = value[7] if trace else value
            assert sorted(places[known]) == list(range(7 * part.size, 8 * part.size) if trace else range(part.size))
            assert found["counts"].sum() == part.size
            assert found["shape"] == list(part.shape)
        # One scale for all steps: the largest size of any of them.
        if not change:
            sizes = [np.abs(by_hand(tmp_path / "r", step)[name]).max() for step in (2, 4, 6)]
            figures(client, tmp_path / "r")
            limit = ask(client, "sheet", tmp_path / "r", step=6, name=name)["limit"]
            assert limit >= max(sizes)
    kernel = ask(client, "sheet", tmp_path / "r", step=4, name="weights/conv.weight")
    assert (kernel["rows"], kernel["columns"], kernel["block"]) == (3 * 3, 2 * 3, [3, 3])
    for o, i, h, w in itertools.product(range(3), range(2), range(3), range(3)):
        assert kernel["cells"][3 * o + h, 3 * i + w] == file["weights/conv.weight"][o, i, h, w]
    maps = ask(client, "sheet", tmp_path / "r", step=4, name="trace/conv", entry=2)
    for c, h, w in itertools.product(range(3), range(2), range(2)):
        assert maps["cells"][2 * (c // 2) + h, 2 * (c % 2) + w] == file["trace/conv"][2, c, h, w]
    assert maps["cells"].shape == (4, 4)
    assert np.isnan(maps["cells"][2:, 2:]).all()  # the square has room for a fourth map
    assert ask(client, "sheet", tmp_path / "r", step=4, name="weights/gain")["cells"].tolist() == [
        [file["weights/gain"]]
    ]


def test_each_weight_moves_by_the_rate_times_its_gradient(client, tmp_path):
    trained(tmp_path / "every", steps=4, every=1)
    name, files = "conv.weight", [by_hand(tmp_path / "every", step) for step in range(5)]
    for index in (0, 17, 53):
        found = ask(client, "cell", tmp_path / "every", step=3, name=f"weights/{name}", index=index)
        place = np.unravel_index(index, (3, 2, 3, 3))
        assert found["place"] == list(place)
        assert found["values"].tolist() == [file[f"weights/{name}"][place] for file in files]
        assert np.isnan(found["gradients"][0])
        assert found["gradients"][1:].tolist() == [file[f"gradients/{name}"][place] for file in files[1:]]
        wanted = -0.05 * files[3][f"gradients/{name}"][place]
        assert found["expected"] == pytest.approx(wanted, rel=1e-6)
        assert abs(found["change"] - wanted) < 1e-7
    for more in (
        {"every": 2},
        {"make": lambda p: torch.optim.Adam(p)},
        {"make": lambda p: torch.optim.SGD(p, 0.1, 0.9)},
    ):
        folder = tmp_path / f"other{len(str(more))}{id(more)}"
        trained(folder, **{"every": 1, "steps": 4, **more})
        assert "expected" not in ask(client, "cell", folder, step=4, name="weights/conv.weight", index=0)


LOOP = """
import sys, torch, neuralmine as nm
model = torch.nn.Linear(3, 2)
with nm.watch(model, every=1, trace=torch.ones(2, 3), folder=sys.argv[1]) as run:
    while True:
        run.step(loss=1.0)
        print(run.index, flush=True)
"""


def test_a_living_recording_is_followed_and_a_killed_one_opens(client, tmp_path):
    folder = tmp_path / "r"
    with subprocess.Popen([sys.executable, "-c", LOOP, folder], stdout=subprocess.PIPE, text=True) as process:
        for _ in range(20):
            process.stdout.readline()
        first = ask(client, "open", folder)
        assert (first["state"], first["live"]) == ("being written", True)
        wait(lambda: len(ask(client, "open", folder)["steps"]) > len(first["steps"]))
        process.send_signal(signal.SIGKILL)
        taken = int([line for line in process.stdout.read().split() if line][-1])
    after = ask(client, "open", folder)
    assert (after["state"], after["live"]) == ("cut off", False)
    assert after["steps"].tolist() == list(range(after["steps"][-1] + 1))
    assert after["steps"][-1] >= taken - 1
    wait(lambda: figures(client, folder)["read"] == len(after["steps"]))
    assert figures(client, folder)["broken"] == {}


def test_a_broken_record_says_so_and_the_others_open(client, tmp_path):
    trained(tmp_path / "r")
    file = tmp_path / "r" / "records" / "000000004.safetensors"
    file.write_bytes(file.read_bytes()[:200])
    found = figures(client, tmp_path / "r")
    assert list(found["broken"]) == ["4"]
    assert "cannot be read" in found["broken"]["4"]
    norm = found["figures"]["norm"][found["names"].index("weights/conv.weight")]
    assert np.isfinite(norm).tolist() == [True, True, False, True]
    assert np.isnan(found["figures"]["change"][:, 3]).all()
    assert (found["answers"][2] == -2).all()
    ask(client, "sheet", tmp_path / "r", step=6, name="weights/conv.weight")
    answer = client.post(
        "/api/recordings/sheet", json={"address": str(tmp_path / "r"), "step": 4, "name": "weights/conv.weight"}
    )
    assert answer.status_code == 507
    assert "cannot be read" in answer.json()["what"]
    values = ask(client, "cell", tmp_path / "r", step=6, name="weights/conv.weight", index=0)["values"]
    assert np.isfinite(values).tolist() == [True, True, False, True]


def test_a_huge_tensor_is_sent_in_slices(client, tmp_path):
    model = nn.Linear(3000, 2000)
    with torch.no_grad():
        model.weight[1990, 2990] = 7
    with nm.watch(model, folder=tmp_path / "r"):
        pass
    whole = model.weight.detach().double().numpy()
    answer = client.post(
        "/api/recordings/sheet",
        json={"address": str(tmp_path / "r"), "step": 0, "name": "weights/weight", "row": 1980, "column": 2950},
    )
    assert len(answer.content) < 100_000
    found = unpacked(answer.content)
    np.testing.assert_array_equal(found["cells"], whole[1980:, 2950:])
    assert (found["rows"], found["columns"], found["max"], found["limit"]) == (2000, 3000, 7, 7)
    assert found["mean"] == pytest.approx(whole.mean())
    assert found["counts"].sum() == whole.size
    assert figures(client, tmp_path / "r")["answers"].shape == (1, 0)  # no batch was traced


def test_a_diverged_recording_says_how_many_numbers_are_none(client, tmp_path):
    model = nn.Linear(2, 3)
    with nm.watch(model, every=1, trace=torch.ones(2, 2), folder=tmp_path / "r") as run:
        with torch.no_grad():
            model.weight[0, 0], model.weight[1, 1] = math.nan, math.inf
        run.step(loss=math.inf)
    found = figures(client, tmp_path / "r")
    at = found["names"].index("weights/weight")
    assert found["figures"]["not_finite"][at].tolist() == [0, 2]
    assert math.isfinite(found["figures"]["norm"][at, 1])
    assert found["answers"][1].tolist() == [-1, -1]
    seen = ask(client, "sheet", tmp_path / "r", step=1, name="weights/weight")
    assert seen["not_finite"] == 2
    assert np.isnan(seen["cells"][0, 0])


def test_pictures_of_inputs_and_inputs_that_are_none():
    grey, colour = np.random.rand(3, 1, 8, 9), np.random.rand(3, 3, 8, 9)
    assert scrubbing._as_pictures(grey).shape == (3, 8, 9)
    assert scrubbing._as_pictures(colour)[1, 2, 3].tolist() == colour[1, :, 2, 3].tolist()
    assert scrubbing._as_pictures(np.zeros((3, 64))).shape == (3, 8, 8)
    assert scrubbing._as_pictures(np.zeros((3, 4))) is None
    assert scrubbing._as_pictures(np.zeros((3, 50))) is None


def test_thinned_curves_keep_every_spike_and_hole():
    values = np.zeros(100_000)
    values[[1234, 50_000, 77_777]] = 5, -9, math.nan
    steps, kept = scrubbing.thinned(np.arange(100_000), values)
    assert len(steps) <= scrubbing.MOST_POINTS
    assert {1234, 50_000, 77_777, 0, 99_999} <= set(steps.tolist())
    np.testing.assert_array_equal(kept, values[steps])


def run_of(client, updates, settings=None):
    body = {
        "hidden": [4],
        "activation": "relu",
        "settings": {"optimizer": "sgd", "lr": 0.5, "batch": 50, **(settings or {})},
    }
    name = client.post("/api/runs", json=body).json()["run"]
    for index in range(1, updates):
        wait(lambda: client.get(f"/api/runs/{name}").json()["status"] == "paused")
        order = {"do": "step", "settings": {"lr": 0.25} if index == 3 else {}}
        client.post(f"/api/runs/{name}/control", json=order)
    wait(lambda: len(client.get(f"/api/runs/{name}").json()["checkpoints"]) == updates)
    return name


def test_a_training_run_is_scrubbed_like_a_recording(client):
    name = run_of(client, 6)
    path = runs.find(name)
    about = ask(client, "open", f"run:{name}")
    assert about["kind"] == "run"
    assert about["steps"].tolist() == [0, 1, 2, 3, 4, 5]
    assert about["parameters"] == 64 * 4 + 4 + 4 * 10 + 10
    found = figures(client, f"run:{name}")
    test = runs.data_parts(runs.about(path))[1]
    for j in range(6):
        network = runs.load_network(path, j)
        with torch.no_grad():
            said = network.module(network.encode(test.images)).argmax(1)
        assert found["answers"][j].tolist() == said.tolist()
    assert about["labels"].tolist() == test.labels.tolist()
    files = [load_file(path / "checkpoints" / f"{j:09d}.safetensors") for j in range(6)]
    weight = "hidden1.sum.weight"
    # Every update is −rate × gradient, also after the rate was changed by hand.
    rates = [0.5, 0.5, 0.25, 0.25, 0.25]
    for step in range(1, 6):
        cell = ask(client, "cell", f"run:{name}", step=step, name=f"weights/{weight}", index=30)
        change = files[step][f"weights/{weight}"][0, 30] - files[step - 1][f"weights/{weight}"][0, 30]
        assert cell["rate"] == rates[step - 1]
        assert cell["change"] == change
        assert abs(cell["expected"] - change) < 1e-12
        gradients = scrubbing.film(f"run:{name}").tensor(step, f"gradients/{weight}")
        np.testing.assert_allclose(
            -rates[step - 1] * gradients,
            files[step][f"weights/{weight}"] - files[step - 1][f"weights/{weight}"], atol=1e-12,
        )  # fmt: skip
        assert np.abs(gradients).max() > 0
    assert [row["address"] for row in client.get("/api/recordings").json()] == [f"run:{name}"]


def no_space(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_ends_a_training_run_with_an_error_and_keeps_what_was_recorded(client, monkeypatch):
    name = run_of(client, 3)
    monkeypatch.setattr(os, "fsync", no_space)
    client.post(f"/api/runs/{name}/control", json={"do": "step"})
    wait(lambda: client.get(f"/api/runs/{name}").json()["status"] == "failed")
    assert "No space left" in client.get(f"/api/runs/{name}").json()["message"]
    assert "Free some space" in client.get(f"/api/runs/{name}").json()["message"]
    about = ask(client, "open", f"run:{name}")
    assert "No space left" in about["state"]
    assert about["steps"].tolist() == [0, 1, 2]
    assert figures(client, f"run:{name}")["broken"] == {}
    monkeypatch.undo()


def test_the_example_is_recorded_stopped_and_survives_a_full_disk(client, monkeypatch):
    assert client.get("/api/recordings/example").json()["status"] in ("none", "stopped", "done", "failed")
    monkeypatch.setattr(routes, "STEPS", 12)
    begun = client.post("/api/recordings/example").json()
    wait(lambda: client.get("/api/recordings/example").json()["status"] == "done")
    about = ask(client, "open", begun["address"])
    assert about["steps"].tolist() == list(range(13))
    cell = ask(client, "cell", begun["address"], step=7, name="weights/hidden1.sum.weight", index=30)
    assert abs(cell["change"] - cell["expected"]) < 1e-12
    shown = ask(client, "inputs", begun["address"], indices=[4])
    test = nm.datasets.load("digits").split(0.25, 0)[1]
    np.testing.assert_allclose(shown["pixels"][0], test.images[4].ravel(), atol=1e-6)
    monkeypatch.setattr(routes, "STEPS", 100_000)
    begun = client.post("/api/recordings/example").json()
    client.post("/api/recordings/example?stop=true")
    wait(lambda: client.get("/api/recordings/example").json()["status"] == "stopped")
    assert "by hand" in ask(client, "open", begun["address"])["state"]
    monkeypatch.setattr(routes, "STEPS", 30)
    begun = client.post("/api/recordings/example").json()
    wait(lambda: client.get("/api/recordings/example").json()["done"] > 3)
    monkeypatch.setattr(os, "fsync", no_space)
    wait(lambda: client.get("/api/recordings/example").json()["status"] == "failed")
    assert "No space left" in client.get("/api/recordings/example").json()["message"]
    steps = ask(client, "open", begun["address"])["steps"].tolist()
    assert steps == list(range(len(steps)))
    assert 3 <= len(steps) < 31


def test_what_cannot_be_asked_is_said(client, tmp_path):
    trained(tmp_path / "r")
    folder = str(tmp_path / "r")
    (tmp_path / "empty").mkdir()
    cases = [
        ("open", {"address": ""}, "No recording was named"),
        ("open", {"address": str(tmp_path / "empty")}, "holds no recording"),
        ("open", {"address": "run:none"}, "no run"),
        ("sheet", {"address": folder, "step": 5, "name": "weights/gain"}, "no recorded step"),
        ("sheet", {"address": folder, "step": 4, "name": "weights/other"}, "no tensor of this step"),
        ("sheet", {"address": folder, "step": 4, "name": "trace/conv", "entry": 10}, "inputs 0 to 9"),
        (
            "sheet",
            {"address": folder, "step": 0, "name": "weights/gain", "change": True},
            "Nothing was recorded before",
        ),
        ("cell", {"address": folder, "step": 4, "name": "weights/gain", "index": 1}, "numbers 0 to 0"),
        ("inputs", {"address": folder, "indices": [10]}, "inputs 0 to 9"),
    ]
    for what, body, words in cases:
        answer = client.post(f"/api/recordings/{what}", json=body)
        assert answer.status_code in (404, 422, 507), (what, body)
        assert words in answer.json()["what"]
    (tmp_path / "home" / "recordings" / "torn").mkdir(parents=True)
    (tmp_path / "home" / "recordings" / "torn" / "run.json").write_text("{")
    rows = client.get("/api/recordings").json()
    assert [row["state"] for row in rows] == ["cannot be read"]
    assert json.dumps(rows)
