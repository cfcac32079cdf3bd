"""Races over HTTP: the plane that is seen, a start that is moved and kept, rates on the way, and clear ends."""

import json
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient

import neuralmine as nm
from neuralmine.races import Plane, Race, lay, plane_through_start
from neuralmine.server import races as server_races
from neuralmine.server.app import make_app
from neuralmine.server.requests import RaceRequest
from neuralmine.surfaces import SurfaceStep

from .test_app import unpacked, wait

RATES = "sgd=0.5,adam=0.01"
ASKED = {"network": {"address": "64-10"}, "optimizers": "sgd,adam", "steps": 6, "lr": RATES, "limit": 200}


@pytest.fixture(scope="module")
def client():
    with TestClient(make_app()) as opened:
        yield opened


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("NEURALMINE_HOME", str(tmp_path))


def reports(client, **more):
    """All reports of a race, to its end."""
    name = client.post("/api/races", json=ASKED | more).json()["id"]
    lines = client.get(f"/api/races/{name}/events").text.splitlines()
    return [json.loads(line[6:]) for line in lines if line.startswith("data: ")]


def data():
    part = nm.datasets.load("digits").split(test=0.25, seed=0)[0]
    return part.take(np.sort(np.random.default_rng(0).permutation(len(part))[:200]))


def loss_of(weights):
    module = nm.load("64-10").module
    torch.nn.utils.vector_to_parameters(torch.as_tensor(weights), module.parameters())
    given = data()
    with torch.no_grad():
        out = module(torch.as_tensor(given.images.reshape(200, -1), dtype=torch.float64)).numpy()
    return float(((out - np.eye(10)[given.labels]) ** 2).sum(1).mean())


def started(**more):
    return Race.of(nm.load("64-10"), data(), "sgd,adam", 6, 32, RATES, 0, 0, more.get("start", "random"))


def test_the_first_plane_is_steepest_descent_and_its_turn():
    race = started()
    plane = plane_through_start(race)
    step = 1e-5

    def slope(weights):
        module = nm.load("64-10").module
        torch.nn.utils.vector_to_parameters(torch.as_tensor(weights), module.parameters())
        out = module(race.inputs)
        loss = ((out - torch.eye(10, dtype=out.dtype)[race.labels]) ** 2).sum(1).mean()
        loss.backward()
        return torch.cat([p.grad.reshape(-1) for p in module.parameters()]).numpy()

    here = slope(plane.centre)
    bend = (slope(plane.centre + step * here) - slope(plane.centre - step * here)) / (2 * step)
    turn = bend - (bend @ here) / (here @ here) * here
    assert np.allclose(plane.axes[0], -here / np.linalg.norm(here), atol=1e-9)
    assert np.allclose(plane.axes[1], turn / np.linalg.norm(turn), atol=1e-6)
    assert np.isnan(plane.explained)


def test_a_picture_comes_before_the_first_step_and_every_plane_says_what_it_is(client):
    name = client.post("/api/races", json=ASKED | {"pace": "paused"}).json()["id"]
    wait(lambda: client.get(f"/api/races/{name}").json()["status"] == "racing")
    held = client.get(f"/api/races/{name}").json()
    assert held["plane"]["kind"] == "start"
    assert held["plane"]["explained"] is None
    assert held["plane"]["number"] == 1
    surface = unpacked(client.post(f"/api/races/{name}/surface").content)
    middle = surface["loss"].shape[0] // 2
    assert surface["loss"][middle, middle] == pytest.approx(held["losses"]["sgd"][0], rel=1e-5)
    client.post(f"/api/races/{name}/control", json={"pace": "full"})
    lines = client.get(f"/api/races/{name}/events").text.splitlines()
    said = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    last = said[-1]
    assert last["status"] == "done"
    assert last["plane"]["kind"] == "paths"
    assert last["plane"]["upto"] == 6
    assert 0.5 < last["plane"]["explained"] <= 1
    numbers = [one["plane"]["number"] for one in said if one["plane"]]
    assert numbers == sorted(numbers)
    assert all(len(path) == 7 for path in last["paths"].values())
    surface = unpacked(client.post(f"/api/races/{last['id']}/surface").content)
    assert surface["loss"].shape == (41, 41)
    assert surface["plane"] == last["plane"]["number"]


def test_a_moved_start_is_the_place_on_the_map_with_its_exact_loss(client):
    before = reports(client)[-1]
    surface = unpacked(client.post(f"/api/races/{before['id']}/surface").content)
    x, y = float(surface["x"][30]), float(surface["y"][7])
    place = {"plane": before["plane"]["number"], "x": x, "y": y}
    start = client.post(f"/api/races/{before['id']}/start", json=place).json()["start"]
    after = reports(client, start=start)[-1]
    assert after["losses"]["sgd"][0] == pytest.approx(float(surface["loss"][7, 30]), rel=1e-5)
    assert after["about"]["x"] == x
    assert after["about"]["upto"] == 6
    # The same start again gives the same race: the link is enough.
    assert reports(client, start=start)[-1]["losses"] == after["losses"]
    # And the weights are what the plane says: a torch of its own finds the same loss.
    with np.load(nm.stores.starts._path(start)) as kept:
        assert loss_of(kept["weights"]) == pytest.approx(after["losses"]["sgd"][0], abs=1e-12)


def test_rates_changed_on_the_way_are_told_and_can_be_repeated(client):
    changed = reports(client, changes=[[3, "adam", 0.5]])[-1]
    plain = reports(client)[-1]
    assert changed["changes"] == [[3, "adam", 0.5]]
    assert changed["losses"]["adam"][:3] == plain["losses"]["adam"][:3]
    assert changed["losses"]["adam"][3] != plain["losses"]["adam"][3]
    assert changed["losses"]["sgd"] == plain["losses"]["sgd"]


def test_a_race_is_held_and_goes_on(client):
    name = client.post("/api/races", json=ASKED | {"pace": "paused"}).json()["id"]
    client.post(f"/api/races/{name}/control", json={"rates": {"adam": 0.02}, "pace": "full"})
    client.get(f"/api/races/{name}/events")
    last = client.get(f"/api/races/{name}").json()
    assert last["status"] == "done"
    assert last["rates"]["adam"] == 0.02


def test_all_that_fall_out_at_the_first_step_leave_the_plane_of_the_start(client):
    last = reports(client, network={"address": "best"}, lr="1e30", limit=40)[-1]
    assert last["status"] == "done"
    assert set(last["out"]) == {"sgd", "adam"}
    assert all("fell out at step" in why and "1e+30" in why for why in last["out"].values())
    assert last["plane"] is not None


@pytest.mark.parametrize(("more", "words"), [
    ({"batch": 500}, "fewer than a batch of 500"),
    ({"start": "own", "network": {"address": "best"}, "lr": "adam=hot"}, "learning rate of adam"),
])  # fmt: skip
def test_what_cannot_be_raced_says_why(client, more, words):
    last = reports(client, **more)[-1]
    assert last["status"] == "failed"
    assert words in last["message"]


@pytest.mark.parametrize(("body", "status", "words"), [
    ({"start": "0123456789abcdef"}, 422, "not on this machine"),
    ({"start": "../../etc/passwd"}, 422, "not on this machine"),
    ({"changes": [[3, "lion", 0.1]]}, 404, "lion"),
    ({"changes": [[3, "adam", -1]]}, 422, "above 0"),
])  # fmt: skip
def test_what_is_asked_wrongly_is_refused_at_once(client, body, status, words):
    answer = client.post("/api/races", json=ASKED | body)
    assert answer.status_code == status
    assert words in answer.json()["what"] + answer.json()["hint"]


def test_a_start_of_another_network_or_an_older_plane_is_refused(client):
    before = reports(client)[-1]
    old = {"plane": before["plane"]["number"] - 1, "x": 0, "y": 0}
    assert client.post(f"/api/races/{before['id']}/start", json=old).status_code == 422
    place = old | {"plane": before["plane"]["number"]}
    start = client.post(f"/api/races/{before['id']}/start", json=place).json()["start"]
    last = reports(client, start=start, network={"address": "64-16-10"})[-1]
    assert last["status"] == "failed"
    assert "650 weights" in last["message"]


def one(**more):
    """A race that no thread runs, in a plane of two weights."""
    here = np.zeros((2, 1, 2))
    plane = Plane(np.zeros(2), np.eye(2), here, here[:, :, 0], np.nan)
    surface = SurfaceStep(np.zeros(1), np.zeros(1), np.zeros((1, 1)), np.ones((1, 1), bool), 1, 1, True)
    race = server_races.Race("a", RaceRequest(), ("sgd", "adam"), {}, "full", **more)

    def seen(number, points):
        paths = {name: [[float(number), 0.0]] * points for name in race.names}
        return server_races.Seen(number, "paths", plane, points - 1, paths, surface)

    return race, seen


def step(index, loss=1.0, weights=(0.0, 0.0)):
    return SimpleNamespace(
        index=index, losses=dict.fromkeys(("sgd", "adam"), loss), weights=lambda _: np.array(weights)
    )


def test_a_report_is_of_one_moment_while_the_race_goes_on():
    race, seen = one()
    race.tell(losses={"sgd": [], "adam": []}, seen=seen(0, 1))
    race.add(step(0))
    switch, torn = sys.getswitchinterval(), []
    sys.setswitchinterval(1e-6)

    def read():
        while race.status != "done":
            said = race.report()
            lengths = {len(values) for values in said["losses"].values()}
            planes = {said["plane"]["number"], *(path[0][0] for path in said["paths"].values())}
            if len(lengths) > 1 or len(planes) > 1:
                torn.append((lengths, planes))

    readers = [threading.Thread(target=read) for _ in range(2)]
    try:
        for reader in readers:
            reader.start()
        for index in range(1, 400):
            race.add(step(index))
            race.tell(seen=seen(index, index + 1))
    finally:
        race.tell(status="done")
        for reader in readers:
            reader.join()
        sys.setswitchinterval(switch)
    assert torn == []


def test_the_last_report_is_sent_though_the_race_ends_while_another_is_on_its_way():
    race, _ = one(status="racing")
    told = race.reports()
    assert next(told)["status"] == "racing"
    race.tell(status="done")
    assert [report["status"] for report in told] == ["done"]


def test_weights_beyond_all_numbers_do_not_spoil_a_report():
    race, seen = one()
    race.tell(losses={"sgd": [], "adam": []}, seen=seen(0, 1))
    race.add(step(1, loss=0.5, weights=(np.inf, 0.0)))
    json.dumps(race.report(), allow_nan=False)


def test_weights_laid_into_a_module_come_back_as_they_were():
    module, weights = nm.load("64-10").module, np.random.default_rng(0).normal(size=650)
    lay(module, weights)
    assert np.array_equal(torch.nn.utils.parameters_to_vector(module.parameters()).detach().numpy(), weights)
