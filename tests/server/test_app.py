"""The HTTP interface: decoded by an independent reader; errors in words; nobody else's page or file gets in."""

import json
import struct
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

import neuralmine as nm
from neuralmine.server import jobs
from neuralmine.server.app import make_app
from neuralmine.server.requests import RunRequest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def client():
    with TestClient(make_app()) as opened:
        yield opened


def unpacked(body: bytes):
    """Read a frame by its description in wire.frame, with nothing of ours."""
    (length,) = struct.unpack("<I", body[:4])
    head = json.loads(body[4 : 4 + length])
    assert (4 + length) % 8 == 0

    def walk(value):
        if isinstance(value, dict) and "$array" in value:
            start = 4 + length + head["offsets"][value["$array"]]
            count = int(np.prod(value["shape"]))
            return np.frombuffer(body, value["dtype"], count, start).reshape(value["shape"])
        if isinstance(value, dict):
            return {key: walk(entry) for key, entry in value.items()}
        return [walk(entry) for entry in value] if isinstance(value, list) else value

    return walk(head["document"])


def wait(condition):
    for _ in range(1200):  # a minute, which only a very busy machine needs
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def test_a_look_over_the_wire_is_the_look_itself(client):
    pixels = nm.datasets.load("digits").images[201].ravel().tolist()
    body = {"lens": "neuron", "input": {"pixels": pixels}, "options": {"layer": "hidden1", "unit": 5}}
    found = unpacked(client.post("/api/look", json=body).content)
    wanted = nm.look("neuron", nm.load("digits"), pixels, layer="hidden1", unit=5)
    for name, value in wanted.numbers.items():
        assert np.array_equal(found["numbers"][name], value), name
    assert found["checks"][0]["passed"] is True


def test_edits_change_the_network_of_this_request_only(client):
    plain = unpacked(client.post("/api/look", json={"lens": "confusion"}).content)["numbers"]["accuracy"]
    network = {
        "address": "64-16-10",
        "off": {"hidden1": [0, 1, 2]},
        "weights": [{"parameter": "output.sum.weight", "index": [0, 0], "value": 9.0}],
    }
    changed = unpacked(client.post("/api/look", json={"lens": "confusion", "network": network}).content)["numbers"][
        "accuracy"
    ]
    again = unpacked(client.post("/api/look", json={"lens": "confusion"}).content)["numbers"]["accuracy"]
    assert changed < plain == again


@pytest.mark.parametrize(("path", "body", "status", "words"), [
    ("/api/look", {"lens": "nueron"}, 404, "neuron"),
    ("/api/look", {"lens": "neuron", "options": {"layer": "hiden1"}}, 404, "hidden1"),
    ("/api/look", {"lens": "neuron", "options": {"unit": 99}}, 422, "neurons 0 to 9"),
    ("/api/look", {"lens": "neuron", "input": {"pixels": [1, 2]}}, 422, "takes (8, 8)"),
    ("/api/look", {"lens": "neuron", "network": {"address": "../../etc/passwd"}}, 404, "no network"),
    ("/api/look", {"lens": "neuron", "network": {"address": "os:system"}}, 422, "address"),
    ("/api/look", {"lens": "neuron", "network": {"address": "run:../x"}}, 404, "no run"),
    ("/api/data", {"name": "/nowhere.csv"}, 422, "There is no"),
    ("/api/runs", {"settings": {"lr": -3}}, 422, "must lie"),
    ("/api/runs", {"hidden": [5000]}, 422, "more than the page can show"),
])  # fmt: skip
def test_errors_say_what_and_what_to_do(client, path, body, status, words):
    answer = client.post(path, json=body)
    assert answer.status_code == status
    said = answer.json()
    assert words in said["what"] + said["hint"]
    assert "Traceback" not in answer.text


def test_other_sites_and_other_names_are_refused(client):
    assert client.get("/api/catalogue", headers={"host": "evil.example"}).status_code == 421
    assert (
        client.post("/api/look", json={"lens": "weights"}, headers={"origin": "http://evil.example"}).status_code == 403
    )
    assert client.get("/%2e%2e/%2e%2e/pyproject.toml").status_code == 404


def test_beyond_loopback_a_token_is_asked_for():
    with TestClient(make_app(host="0.0.0.0", token="gold")) as client:
        assert client.get("/api/catalogue").status_code == 401
        assert client.get("/api/catalogue?token=lead").status_code == 401
        assert client.get("/api/catalogue?token=gold").status_code == 200
        assert client.get("/api/catalogue").status_code == 200  # by the cookie


def test_a_run_from_begin_to_discard(client):
    begun = client.post("/api/runs", json={"hidden": [4], "settings": {"epochs": 40, "batch": 64}}).json()
    name = begun["run"]
    address = f"/api/runs/{name}"
    wait(lambda: client.get(address).json()["checkpoints"] == [0])
    client.post(f"{address}/control", json={"do": "play", "speed": "full"})
    wait(lambda: client.get(address).json()["latest"]["epoch"] >= 3)
    client.post(f"{address}/control", json={"do": "change", "settings": {"lr": 0.05}})
    wait(lambda: client.get(address).json()["status"] == "ended")
    history = client.get(address).json()
    assert history["now"]["lr"] == 0.05
    assert history["steps"][-1]["epoch"] == 40
    assert history["steps"][-1]["metrics"]["lr"] == 0.05
    early = history["checkpoints"][2]
    look = {"lens": "confusion", "network": {"address": f"run:{name}@{early}"}}
    accuracy = unpacked(client.post("/api/look", json=look).content)["numbers"]["accuracy"]
    line = next(step for step in history["steps"] if step["index"] == early)
    assert float(accuracy) == pytest.approx(line["metrics"]["test_accuracy"])
    assert client.post(f"{address}/control", json={"do": "rewind", "to": early}).json()["latest"]["index"] == early
    client.post(f"{address}/control", json={"do": "step"})
    wait(lambda: client.get(address).json()["latest"]["index"] == early + 1)
    assert client.delete(address).json() == {"discarded": name}
    assert client.get(address).status_code == 404


def test_requests_at_once_get_the_same_job(monkeypatch):
    name = jobs.begin(RunRequest(settings={"epochs": 1}))["run"]
    jobs.get(name).halt()
    jobs._jobs.clear()
    both, found, made = threading.Barrier(2), [], jobs.Job

    def slow(name):
        time.sleep(0.05)  # so that the second asks before the first is done
        return made(name)

    def ask():
        both.wait()
        found.append(jobs.get(name))

    monkeypatch.setattr(jobs, "Job", slow)
    askers = [threading.Thread(target=ask) for _ in range(2)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert found[0] is found[1]


def test_no_more_images_are_sent_than_were_asked_for(client):
    assert len(unpacked(client.post("/api/data?count=3", json={}).content)["images"]) == 3
    assert len(unpacked(client.post("/api/data?count=-1", json={}).content)["images"]) == 0


def test_the_events_begin_with_the_present_state():
    job = jobs.get(jobs.begin(RunRequest(settings={"epochs": 2}))["run"])
    first = next(job.reports())
    assert first["run"] == job.name
    job.halt()


def test_the_wire_types_of_the_front_end_are_those_of_the_server():
    written = json.loads((ROOT / "web" / "openapi.json").read_text())
    assert written == json.loads(json.dumps(make_app().openapi())), "run scripts/openapi.py"


def test_photos_pictures_and_the_search_for_examples(client, tmp_path):
    pytest.importorskip("skimage")
    import io

    from PIL import Image

    assert "chelsea" in client.get("/api/photos").json()
    buffer = io.BytesIO()
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(buffer, "PNG")
    kept = client.post("/api/pictures", content=buffer.getvalue()).json()
    assert (kept["rows"], kept["columns"]) == (4, 4)
    again = Image.open(io.BytesIO(client.get(f"/api/pictures/{kept['id']}").content))
    assert np.array_equal(np.asarray(again), np.arange(48).reshape(4, 4, 3))
    refused = client.post("/api/pictures", content=b"%PDF-1.7")
    assert refused.status_code == 422
    assert "PDF" in refused.json()["what"]
    assert client.get("/api/pictures/..%2F..%2Fetc").status_code == 404
    gone = {"lens": "prediction", "network": {"address": "squeezenet"}, "input": {"photo": "0" * 20}}
    assert "not on this machine" in client.post("/api/look", json=gone).json()["what"]
    text = {"lens": "prediction", "network": {"address": "64-16-10"}, "input": {"photo": "chelsea"}}
    assert "does not look at photos" in client.post("/api/look", json=text).json()["what"]

    rng = np.random.default_rng(0)
    (tmp_path / "seen").mkdir()
    for i in range(3):
        Image.fromarray(rng.integers(0, 255, (60, 60, 3), dtype=np.uint8)).save(tmp_path / "seen" / f"{i}.png")
    asked = {"network": {"address": "squeezenet"}, "folder": str(tmp_path / "seen")}
    assert client.post("/api/examples", json=asked).json()["status"] == "none"
    client.post("/api/examples?begin=true", json=asked)
    wait(lambda: client.post("/api/examples", json=asked).json()["status"] != "running")
    state = client.post("/api/examples", json=asked).json()
    assert (state["status"], state["done"], state["total"]) == ("done", 3, 3)
    assert client.post("/api/examples/found?layer=features.0&unit=2", json=asked).status_code == 200
    assert client.post("/api/examples/found?layer=nothing&unit=2", json=asked).status_code == 404


def test_a_dream_runs_is_kept_and_can_be_taken_up_again(client):
    pytest.importorskip("skimage")
    import io

    from PIL import Image

    from neuralmine.server import dreams

    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(buffer, "PNG")
    photo = client.post("/api/pictures", content=buffer.getvalue()).json()["id"]
    asked = {"photo": photo, "layers": "features.0,features.3", "settings": {"octaves": 1, "steps": 2, "budget": 0.1}}
    name = client.post("/api/dreams", json=asked).json()["id"]

    def ended():
        wait(lambda: client.get(f"/api/dreams/{name}").json()["status"] in ("done", "failed", "stopped"))
        return client.get(f"/api/dreams/{name}").json()

    report = ended()
    assert report["status"] == "done", report["message"]
    for about in report["about"].values():
        assert about["objective"][1] > about["objective"][0]
        assert about["change"] == pytest.approx(0.1, rel=1e-3)
    for ending in ("gif", "webp", "sheet", "html"):
        assert client.get(f"/api/dreams/{name}/file/{ending}").status_code == 200
    assert client.get(f"/api/dreams/{name}/file/exe").status_code == 404
    # A restart in the middle: the server knows nothing, one layer is missing, and nothing says that it ended.
    dreams.of(name).picture(1).unlink()
    (dreams.of(name).path / "ended.json").unlink()
    first = dreams.of(name).picture(0).read_bytes()
    dreams._jobs.clear()
    dreams.go_on()
    assert ended()["done"] == [True, True]
    assert dreams.of(name).picture(0).read_bytes() == first
    for settings in ({"steps": 0}, {"octaves": 99}, {"nonsense": 1}):
        assert client.post("/api/dreams", json={**asked, "settings": settings}).status_code in (404, 422)
    assert client.post("/api/dreams", json={**asked, "layers": "features.99"}).status_code == 404
    assert client.get("/api/dreams/..%2F..%2Fetc").status_code == 404
    assert client.delete(f"/api/dreams/{name}").status_code == 200
    assert client.get(f"/api/dreams/{name}").status_code == 404


def test_work_under_way_says_how_far_it_is_and_can_be_stopped(client):
    import threading

    body = {
        "lens": "occlusion", "network": {"address": "digits"}, "input": {"data": {}, "index": 3},
        "options": {"window": 1, "stride": 1, "batch": 1},
    }  # fmt: skip
    answers, heard = [], []
    asking = threading.Thread(
        target=lambda: answers.append(client.post("/api/look", json=body, headers={"Neuralmine-Ticket": "t1"}))
    )
    asking.start()
    while asking.is_alive():
        found = client.get("/api/underway/t1").json()
        if found:
            heard.append(found)
            client.delete("/api/underway/t1")
    assert heard
    assert 0 <= heard[0]["done"] <= 1
    assert "squares" in heard[0]["words"]
    assert answers[0].status_code == 422
    assert "stopped" in answers[0].json()["what"]
    assert client.get("/api/underway/t1").json() is None
