"""The command line: what it prints, its exit codes, and errors that say what to do instead of a traceback."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

import neuralmine as nm

RUN = [sys.executable, "-c", "from neuralmine.cli import main; main()"]


def run(*words, **environment):
    return subprocess.run([*RUN, *map(str, words)], capture_output=True, text=True, env={**os.environ, **environment})


def test_looking_as_json_gives_the_numbers(tmp_path):
    done = run(
        "look",
        "neuron",
        "--network",
        "digits",
        "--input",
        "digits:201",
        "--layer",
        "hidden1",
        "--unit",
        3,
        "--json",
        "--out",
        tmp_path / "f",
    )
    said = json.loads(done.stdout)
    wanted = nm.look("neuron", nm.load("digits"), nm.datasets.load("digits").images[201], layer="hidden1", unit=3)
    assert said["numbers"]["sum"] == float(wanted.numbers["sum"])
    assert np.array_equal(nm.load_finding(tmp_path / "f").numbers["products"], wanted.numbers["products"])


def test_training_prints_the_spread_over_splits():
    done = run(
        "train",
        "digits",
        "--hidden",
        "",
        "--optimizer",
        "one_weight_at_a_time",
        "--lr",
        32,
        "--epochs",
        3,
        "--splits",
        2,
        "--seed",
        0,
        "--json",
    )
    said = json.loads(done.stdout)
    accuracies = [split["accuracy"] for split in said["splits"]]
    assert said["accuracy"]["mean"] == pytest.approx(np.mean(accuracies))
    assert said["accuracy"]["sd"] == pytest.approx(np.std(accuracies, ddof=1))
    assert (said["accuracy"]["min"], said["accuracy"]["max"], said["accuracy"]["n"]) == (
        min(accuracies),
        max(accuracies),
        2,
    )
    assert said["dead_outputs"] >= 0
    assert said["seconds"] > 0
    assert "writer-independent" in said["note"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    from safetensors.torch import load_file, save_file

    from neuralmine.networks.catalogue import WEIGHTS

    folder = tmp_path_factory.mktemp("files")
    (folder / "empty.csv").write_text("")
    (folder / "ragged.csv").write_text("1,2,a\n1,2,3,b\n")
    (folder / "one.csv").write_text("1,2,a\n3,4,a\n")
    (folder / "word.csv").write_text("1,2,a\n3,x,b\n")
    (folder / "binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    (folder / "pickle.pt").write_bytes(b"\x80\x04")
    (folder / "file").write_text("")
    from safetensors import safe_open

    with safe_open(WEIGHTS / "64-10.safetensors", framework="pt") as opened:
        about = opened.metadata()
    broken = load_file(WEIGHTS / "64-10.safetensors")
    next(iter(broken.values())).fill_(float("nan"))
    save_file(broken, folder / "nan.safetensors", about)
    from PIL import Image

    for name, size in (("a", (8, 8)), ("b", (9, 8))):
        (folder / "mixed" / name).mkdir(parents=True)
        Image.new("L", size).save(folder / "mixed" / name / "1.png")
    return folder


@pytest.mark.parametrize(("words", "code", "says"), [
    (["look", "nueron"], 2, "Did you mean 'neuron'"),
    (["look", "neuron", "--layer", "hiden1"], 2, "Did you mean 'hidden1'"),
    (["look", "neuron", "--units", "3"], 2, "Did you mean 'unit'"),
    (["look", "neuron", "--input", "digits:5000"], 2, "images 0 to 1796"),
    (["look", "neuron", "--network", "{}/nan.safetensors"], 1, "not numbers"),
    (["look", "neuron", "--network", "{}/pickle.pt"], 1, "pickle"),
    (["look", "weights", "--out", "{}/file"], 1, "is a file"),
    (["look", "weights", "--out", "/proc/nowhere/x"], 1, "Cannot write"),
    (["train", "{}/none.csv"], 1, "There is no"),
    (["train", "{}/empty.csv"], 1, "is empty"),
    (["train", "{}/ragged.csv"], 1, "line 2 has 4"),
    (["train", "{}/one.csv"], 1, "only one class"),
    (["train", "{}/word.csv"], 1, "line 2: value 2 is 'x'"),
    (["train", "{}/binary.csv"], 1, "no text file"),
    (["train", "{}/mixed"], 1, "mixed sizes"),
    (["train", "digits", "--hidden", "a"], 2, "no list of widths"),
    (["train", "digits", "--lr", "-1"], 2, "must lie"),
    (["train", "digits", "--optimizer", "sdg"], 2, "Did you mean 'sgd'"),
    (["train", "digits", "--preset", "bset"], 2, "Did you mean 'best'"),
    (["study", "loop"], 2, "loops"),
    (["runs", "--discard", "none"], 2, "no run"),
])  # fmt: skip
def test_errors_end_with_the_right_code_and_in_words(words, code, says, files):
    done = run(*[word.replace("{}", str(files)) for word in words])
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_says_so_and_names_another():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("serve", PORT=str(port), NO_BROWSER="1")
    assert done.returncode == 2
    assert f"port {port}" in done.stderr
    assert f"PORT={port + 1}" in done.stderr


@pytest.mark.parametrize(
    "words",
    [["networks"], ["lenses"], ["data"], ["studies"], ["runs"], ["layers", "digits"], ["look", "neuron", "--help"]],
)
def test_listings_list(words):
    done = run(*words)
    assert done.returncode == 0
    assert done.stdout.strip()


def test_two_numbers_are_trained_like_pictures():
    how = ["--hidden", 3, "--activation", "tanh", "--optimizer", "adam", "--lr", 0.1, "--epochs", 40, "--batch", 50]
    said = json.loads(run("train", "xor", *how, "--json").stdout)
    assert said["architecture"]["sizes"] == [2, 3, 2]
    assert said["accuracy"]["mean"] == 1


def test_a_sealed_part_is_opened_once(tmp_path):
    own = {"NEURALMINE_HOME": str(tmp_path)}
    said = json.loads(run("train", "xor", "--hidden", 3, "--epochs", 2, "--sealed", 0.1, "--json", **own).stdout)
    name, count = said["splits"][0]["run"], said["splits"][0]["sealed"]
    opened, again = (json.loads(run("runs", "--open-seal", name, "--json", **own).stdout) for _ in range(2))
    assert (opened["count"], opened["first"], again) == (count, True, {**opened, "first": False})
    log = json.loads(run("runs", "--json", **own).stdout)
    assert log[0]["seal"]["accuracy"] == opened["accuracy"]
    assert log[0]["last"]["metrics"]["test_accuracy"] == said["splits"][0]["accuracy"]


def test_recordings_are_listed_with_their_size_and_end(tmp_path):
    import torch

    import neuralmine as nm

    model = torch.nn.Linear(2, 1)
    with nm.watch(model, every=2) as watched:
        for _ in range(3):
            watched.step(loss=1.0)
    (tmp_path / "home" / "recordings" / "torn").mkdir()
    (tmp_path / "home" / "recordings" / "torn" / "run.json").write_text("{")
    torn, row = json.loads(run("recordings", "--json").stdout)
    assert (row["model"], row["records"], row["last"], row["ended"]) == ("Linear", 3, 3, "done")
    assert row["bytes"] == sum(f.stat().st_size for f in watched.path.rglob("*") if f.is_file())
    assert "cannot be read" in torn["ended"]
    assert "3 records to step 3" in run("recordings").stdout
