"""Experiments over HTTP: they run, report, give the same finding as the lens, and stop."""

import json
import time

import pytest

pytest.importorskip("httpx")
from fastapi.testclient import TestClient

import neuralmine as nm
from neuralmine.server import methods
from neuralmine.server.app import make_app

SHORT = {"network": {"address": "64-10"}, "seeds": 2, "seed": 3, "lr": 0.05}


@pytest.fixture(scope="module")
def client():
    with TestClient(make_app()) as opened:
        yield opened


def ended(client, body):
    begun = client.post("/api/methods", json=body)
    assert begun.status_code == 200, begun.text
    with client.stream("GET", f"/api/methods/{begun.json()['id']}/events") as stream:
        return [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: ")]


def test_an_experiment_reports_as_it_goes_and_finds_what_the_lens_finds(client):
    reports = ended(client, {**SHORT, "kind": "ablation", "ingredients": "cosine", "epochs": 2, "limit": 60})
    assert reports[-1]["status"] == "done"
    assert [report["done"] for report in reports] == sorted(report["done"] for report in reports)
    assert reports[-1]["names"] == ["plain", "plain again", "cosine"]
    data = nm.datasets.load("digits").split()[0]
    finding = nm.look(
        "training_ablation", nm.load("64-10"), data, ingredients="cosine", epochs=2, limit=60, seeds=2, seed=3, lr=0.05
    )
    assert reports[-1]["accuracy"] == finding.numbers["accuracy"].tolist()
    frame = client.post(f"/api/methods/{reports[-1]['id']}/finding")
    assert finding.summary in frame.content.decode("utf-8", "ignore")


def test_growing_data_reports_a_row_a_size(client):
    reports = ended(client, {**SHORT, "kind": "scaling", "sizes": 3, "updates": 20})
    assert reports[-1]["status"] == "done"
    assert [len(row) for row in reports[-1]["accuracy"]] == [2, 2, 2]
    assert reports[-1]["names"][-1] == "1010"


def test_it_stops_when_told_and_says_what_it_has_not(client):
    begun = client.post("/api/methods", json={**SHORT, "kind": "ablation", "epochs": 5000}).json()
    job = methods.of(begun["id"])
    assert client.post(f"/api/methods/{begun['id']}/finding").status_code == 422
    assert client.post(f"/api/methods/{begun['id']}/stop").status_code == 200
    while job.status == "running":
        time.sleep(0.02)
    assert job.status == "stopped"


@pytest.mark.parametrize(("change", "status", "words"), [
    ({"ingredients": "cosin"}, 404, "cosine"),
    ({"ingredients": "dropout"}, 422, "None of these"),
    ({"network": {"address": "minilm"}}, 422, "reads texts"),
    ({"seeds": 1}, 422, "greater than or equal to 2"),
])  # fmt: skip
def test_what_cannot_be_tried_is_said_at_once(client, change, status, words):
    answer = client.post("/api/methods", json={**SHORT, "kind": "ablation", **change})
    assert answer.status_code == status
    assert words in answer.text


def test_an_experiment_that_does_not_exist_is_not_found(client):
    assert client.post("/api/methods/none/stop").status_code == 404
