"""Toy problems over the wire: pictures against numpy by hand, steps against `train`, weights set, undone and linked."""

import time

import numpy as np
import pytest
from fastapi.testclient import TestClient

import neuralmine as nm
from neuralmine.architectures import build
from neuralmine.server import toys
from neuralmine.server.app import make_app

from .test_app import unpacked, wait


@pytest.fixture(scope="module")
def client():
    yield TestClient(make_app())  # not entered: the warming up at its start is not needed here
    toys.stop_all()


def begun(client, **asked):
    return client.post("/api/toys", json={"hidden": [3], "lr": 0.1, **asked}).json()["id"]


def picture(client, name, **asked):
    return unpacked(client.post(f"/api/toys/{name}/picture", json={"points": 5, **asked}).content)


def tell(client, name, **order):
    return client.post(f"/api/toys/{name}/control", json=order).json()


def test_a_picture_is_the_forward_pass_at_each_place(client):
    name = begun(client)
    seen = picture(client, name, place=[0.4, -0.7])
    points = unpacked(client.post(f"/api/toys/{name}/points", json={}).content)
    (hidden, output), reach = seen["layers"], points["reach"]
    across = np.linspace(-reach, reach, 5)
    for row, column in ((0, 0), (1, 3), (4, 2)):
        place = np.array([across[column], -across[row]])  # the first row is the highest
        values = np.tanh(hidden["weight"] @ place + hidden["bias"])
        assert np.allclose(hidden["maps"][:, row, column], values, atol=1e-6)
        out = 1 / (1 + np.exp(-(output["weight"] @ values + output["bias"])))
        assert np.allclose(output["maps"][:, row, column], out, atol=1e-6)
    opened = hidden["weight"] @ [0.4, -0.7] + hidden["bias"]
    assert np.allclose(hidden["inputs"], [0.4, -0.7])
    assert np.allclose(hidden["sums"], opened)
    assert np.allclose(output["inputs"], np.tanh(opened))
    right = (seen["said"] > 0.5) == points["labels"]
    assert seen["report"]["test_accuracy"] == pytest.approx(right[points["test"] == 1].mean())
    assert seen["report"]["train_accuracy"] == pytest.approx(right[points["test"] == 0].mean())
    assert np.abs(points["points"]).max() < reach


def test_steps_are_those_of_train(client):
    name = begun(client, problem="spirals", noise=0.03, optimizer="momentum", seed=3)
    for _ in range(9):
        report = tell(client, name, do="step")
    net = nm.load(build({"sizes": [2, 3, 1], "activation": "tanh", "seed": 3}), shape=(2,), loss="squared")
    part, _ = nm.datasets.load("spirals", noise=0.03, seed=3).split(0.25, 3)
    steps = nm.train(net, part, optimizer="sgd", momentum=0.9, lr=0.1, batch=20, seed=3, pace="update", epochs=5)
    for _ in range(10):
        next(steps)
    assert report["updates"] == 9
    wanted = np.concatenate([p.detach().numpy().ravel() for p in net.module.parameters()])
    assert np.array_equal(picture(client, name)["weights"], wanted)


def test_a_weight_is_set_undone_and_redone(client):
    name = begun(client)
    tell(client, name, do="step")
    before = picture(client, name)["weights"]
    for value, first in ((1.5, True), (2.5, False)):
        order = {"parameter": "hidden1.sum.weight", "index": [1, 0], "value": value}
        report = tell(client, name, do="set", weight=order, first=first)
    seen = picture(client, name)
    assert seen["layers"][0]["weight"][1, 0] == 2.5
    assert (report["undo"], report["redo"]) == (1, 0)
    assert tell(client, name, do="undo")["redo"] == 1
    assert np.array_equal(picture(client, name)["weights"], before)
    tell(client, name, do="redo")
    assert np.array_equal(picture(client, name)["weights"], seen["weights"])
    assert "Move a weight" in client.post(f"/api/toys/{name}/control", json={"do": "redo"}).json()["hint"]
    linked = begun(client, weights=seen["weights"].tolist(), updates=1)
    again = picture(client, linked)
    assert np.array_equal(again["weights"], seen["weights"])
    assert again["report"]["updates"] == 1
    assert again["report"]["train_loss"] == seen["report"]["train_loss"]


def test_playing_learns_and_stops_when_nobody_looks(client, monkeypatch):
    name = begun(client, hidden=[4])
    tell(client, name, do="play", speed="fast")
    wait(lambda: picture(client, name)["report"]["train_accuracy"] == 1)
    tell(client, name, do="change", lr=0.01, optimizer="sgd")
    assert toys.of(name).asked.lr == 0.01
    monkeypatch.setattr(toys, "UNWATCHED", 0.2)
    wait(lambda: toys.of(name).status == "paused")
    stopped = toys.of(name).updates
    time.sleep(0.3)
    assert toys.of(name).updates == stopped
    assert "nobody" in toys.of(name).message


def test_a_rate_that_explodes_ends_with_words(client):
    name = begun(client, activation="identity", optimizer="gradient_descent", hidden=[8, 8, 8, 8], lr=100)
    order = {"parameter": "output.sum.bias", "index": [0], "value": 1e300}
    tell(client, name, do="set", weight=order)
    for _ in range(3):
        report = tell(client, name, do="step")
    assert report["status"] in ("paused", "ended")
    assert np.isfinite(picture(client, name)["weights"]).all()


def test_lenses_look_at_the_net_as_it_is(client):
    name = begun(client, activation="identity", hidden=[4, 4])
    found = unpacked(client.post(f"/api/toys/{name}/look/linear_collapse").content)
    (first, second, last) = (layer["weight"] for layer in picture(client, name)["layers"])
    assert np.allclose(found["numbers"]["product"], last @ second @ first)
    assert found["numbers"]["gap"] < 1e-6


def test_what_cannot_be_is_refused_in_words(client):
    name = begun(client)
    assert client.post("/api/toys/none/picture", json={}).status_code == 404
    assert client.post("/api/toys", json={"hidden": [9]}).status_code == 422
    for path, body in (
        ("/api/toys", {"weights": [0.5]}),
        (f"/api/toys/{name}/control", {"do": "set"}),
        (f"/api/toys/{name}/control", {"do": "undo"}),
        (f"/api/toys/{name}/look/neuron", {}),
    ):
        answer = client.post(path, json=body)
        assert answer.status_code == 422
        assert all(answer.json()[part] for part in ("what", "hint"))


def test_its_reports_follow_its_updates(client):
    name = begun(client)
    told = toys.of(name).reports()
    assert next(told)["updates"] == 0
    tell(client, name, do="step")
    assert next(told)["updates"] == 1
