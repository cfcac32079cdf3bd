"""neuralmine dream: the files it writes, Ctrl-C, going on, and bad input."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

import neuralmine as nm
from neuralmine.cli import main
from neuralmine.moving import notes_of

SLOW = """
import signal, torch, neuralmine as nm, neuralmine.networks
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with Ctrl-C ignored
torch.set_num_threads(1)
layers = [torch.nn.Conv2d(3, 6, 3), torch.nn.ReLU(), torch.nn.Conv2d(6, 6, 3), torch.nn.Conv2d(6, 8, 3)]
net = nm.load(torch.nn.Sequential(*layers), shape=(3, 16, 16))
nm.networks.load = lambda name: net
from neuralmine.cli import main
main()
"""


def net():
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 6, 3), torch.nn.ReLU(), torch.nn.Conv2d(6, 6, 3), torch.nn.Conv2d(6, 8, 3)]
    return nm.load(torch.nn.Sequential(*layers), shape=(3, 16, 16))


@pytest.fixture
def place(tmp_path, monkeypatch):
    photo = np.random.default_rng(1).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    small = net()
    monkeypatch.setattr("neuralmine.networks.load", {"small": small}.__getitem__)
    return tmp_path


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["neuralmine", "dream", *map(str, words), "--network", "small"])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0


def test_every_layer_is_written_and_the_animation_has_one_frame_each(place, monkeypatch, capsys):
    words = ["photo.png", "--steps", 2, "--octaves", 2, "--seed", 4, "--out", "dreams"]
    assert run(monkeypatch, *words, "--gif", "d.gif", "--sheet", "d.png", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    names = ["01-0.png", "02-2.png", "03-3.png", "04-the-photo.png"]
    assert sorted(path.name for path in (place / "dreams").iterdir()) == names
    assert [layer["layer"] for layer in said["layers"]] == ["0", "2", "3"]
    assert not said["stopped"]
    with Image.open("d.gif") as image:
        assert image.n_frames == 4
    photo = np.array(Image.open("photo.png"))
    assert np.array_equal(np.array(Image.open(place / "dreams" / names[-1])), photo)
    assert Image.open("d.png").width > 1000
    for path in ("d.gif", "d.png", place / "dreams" / names[0]):
        assert notes_of(path)["seed"] == 4
    assert run(monkeypatch, *words, "--gif", "e.webp") == 0
    told = capsys.readouterr().out
    assert told.count("was there already") == 3
    assert "e.webp" in told


def test_a_zooming_video_has_as_many_pictures_as_asked(place, monkeypatch):
    words = ["photo.png", "--steps", 1, "--octaves", 1, "--layers", "2", "--zoom", "z.webp", "--frames", 5]
    assert run(monkeypatch, *words) == 0
    with Image.open("z.webp") as image:
        assert (image.n_frames, image.size) == (5, (56, 40))
    assert notes_of(place / "z.webp")["zoom"] == "2"


def test_ctrl_c_leaves_the_finished_layers(place):
    words = ["dream", "photo.png", "--steps", "500", "--gif", "d.gif"]  # a second or more for each layer
    running = subprocess.Popen([sys.executable, "-c", SLOW, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    first = place / "photo-dream" / "01-0.png"
    while not first.exists() and running.poll() is None:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, error = running.communicate(timeout=60)
    assert running.returncode == 130, error
    assert "1 of 3 layers are finished" in error
    assert notes_of(first)["layer"] == "0"
    assert sorted(path.name for path in first.parent.iterdir()) == ["01-0.png", "04-the-photo.png"]
    with Image.open("d.gif") as image:
        assert image.n_frames == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["missing.png"], "There is no file"),
        (["photo.png", "--layers", "nothing"], "There is no layer"),
        (["photo.png", "--strength", "0"], "must lie from"),
        (["photo.png", "--octaves", "99"], "must lie from"),
        (["photo.png", "--gif", "d.avi"], "ending"),
        (["photo.png", "--sheet", "d.jpg"], "ending"),
    ],
)
def test_bad_input_says_what_is_wrong(place, monkeypatch, capsys, words, said):
    assert run(monkeypatch, *words) in (1, 2)
    assert said in capsys.readouterr().err
    assert not (place / "photo-dream").exists()
