"""One dream a layer at one budget, the photo last to the byte; what is kept is read back."""

import numpy as np
import pytest
import torch
from PIL import Image

import neuralmine as nm
from neuralmine.errors import UnknownName, UsageError
from neuralmine.moving import notes_of


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    layers = [
        torch.nn.Conv2d(3, 6, 3),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(6, 8, 3),
        torch.nn.ReLU(),
    ]
    return nm.load(torch.nn.Sequential(*layers), shape=(3, 16, 16))


@pytest.fixture(scope="module")
def photo():
    return np.random.default_rng(1).integers(0, 256, (50, 70, 3), dtype=np.uint8)


def test_every_layer_in_depth_order_at_one_budget_and_the_photo_last(network, photo):
    finding = nm.look("dream_series", network, photo, steps=3, octaves=2, budget=0.08)
    pictures, change = finding.numbers["pictures"], finding.numbers["change"]
    assert finding.provenance["layers"] == ["0", "2", "3"]
    assert pictures.dtype == np.uint8
    assert pictures[-1].tobytes() == photo.tobytes()
    assert change == pytest.approx([0.08] * 3, rel=1e-4)
    by_hand = [np.sqrt(np.square(one / 255 - photo / 255).mean()) for one in pictures[:-1]]
    assert by_hand == pytest.approx([0.08] * 3, rel=2e-3)  # rounded to 8 bits
    assert all(check.passed for check in finding.checks)
    alone = nm.look("dream", network, photo, layer="2", steps=3, octaves=2, budget=0.08)
    assert np.array_equal(np.rint(alone.numbers["picture"] * 255), pictures[1])
    assert finding.numbers["objective"][1] == pytest.approx(
        [float(alone.numbers["before"]), float(alone.numbers["after"])]
    )


def test_what_is_kept_is_the_same_and_says_how_it_was_made(network, photo, tmp_path):
    options = {"steps": 2, "octaves": 2, "layers": "3, 0"}
    first = nm.look("dream_series", network, photo, keep=str(tmp_path), **options)
    again = nm.look("dream_series", network, photo, keep=str(tmp_path), **options)
    plain = nm.look("dream_series", network, photo, **options)
    for other in (again, plain):
        for name, value in first.numbers.items():
            assert np.array_equal(value, other.numbers[name]), name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["01-0.png", "02-3.png"]
    notes = notes_of(tmp_path / "02-3.png")
    assert (notes["layer"], notes["seed"], notes["steps"]) == ("3", 0, 2)
    assert np.array_equal(np.array(Image.open(tmp_path / "02-3.png")), first.numbers["pictures"][1])


def test_a_dead_layer_does_not_stop_the_series(photo):
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 3))
    with torch.no_grad():
        module[0].bias.fill_(-100)
    finding = nm.look("dream_series", nm.load(module, shape=(3, 16, 16)), photo, steps=1)
    assert "0 everywhere" in finding.summary
    assert np.array_equal(finding.numbers["pictures"][1], photo)
    assert not finding.checks[0].passed


def test_wrong_layers(network, photo):
    with pytest.raises(UnknownName):
        nm.look("dream_series", network, photo, layers="0,7")
    with pytest.raises(UsageError, match="No layer"):
        nm.look("dream_series", network, photo, layers=",")
