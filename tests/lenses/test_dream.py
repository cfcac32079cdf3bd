"""A dream's numbers by hand, and its null."""

import numpy as np
import pytest
import torch

import neuralmine as nm
from neuralmine.errors import UnknownName, UsageError


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 5, 3),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(5, 2),
    )
    return nm.load(module, shape=(3, 16, 16), labels=("one", "two"), mean=[0.4, 0.5, 0.6], std=[0.2, 0.25, 0.3])


@pytest.fixture(scope="module")
def photo():
    return np.random.default_rng(1).integers(0, 256, (34, 45, 3), dtype=np.uint8)


def answered(network, picture):
    """The mean square of the first layer, worked out in double precision."""
    raw = (picture.astype(np.float64) - [0.4, 0.5, 0.6]) / [0.2, 0.25, 0.3]
    conv = network.module[0]
    windows = np.lib.stride_tricks.sliding_window_view(raw, (3, 3), (0, 1))
    values = np.einsum("ijcxy,ocxy->ijo", windows, conv.weight.detach().double().numpy()) + conv.bias.detach().numpy()
    return float((values**2).mean())


def test_numbers_are_what_they_are_called(network, photo):
    finding = nm.look("dream", network, photo, layer="0", steps=4, octaves=2, budget=0.07, shuffles=4)
    numbers = finding.numbers
    assert np.array_equal(np.rint(numbers["original"] * 255), photo)
    assert np.array_equal(numbers["change"], numbers["picture"] - numbers["original"])
    assert numbers["objective"].shape == (8,)
    assert float(np.sqrt((numbers["change"].astype(float) ** 2).mean())) == pytest.approx(0.07, rel=1e-4)
    assert numbers["before"] == pytest.approx(answered(network, photo / 255), rel=1e-4)
    assert numbers["after"] == pytest.approx(answered(network, numbers["picture"]), rel=1e-4)
    check = finding.checks[0]
    assert check.measured == pytest.approx(float(numbers["after"] - numbers["before"]))
    assert check.null == pytest.approx(float((numbers["shuffled"] - numbers["before"]).mean()))
    assert check.passed
    assert "0.070" in finding.summary


def test_the_shuffled_change_is_the_same_change_elsewhere(network, photo):
    from neuralmine.octaves import shuffled_change

    before = np.full((3, 10, 12), 0.5, np.float32)
    after = before + np.random.default_rng(0).uniform(-0.3, 0.3, before.shape).astype(np.float32)
    mixed = shuffled_change(before, after, np.random.default_rng(3))
    order = np.random.default_rng(3).permutation(120)
    assert np.allclose((mixed - before).reshape(3, -1), (after - before).reshape(3, -1)[:, order], atol=1e-5)


def test_a_class_a_unit_and_a_guide(network, photo, tmp_path):
    from PIL import Image

    Image.fromarray(photo[:20, ::-1]).save(tmp_path / "guide.png")
    for asked in ({"target": "two"}, {"layer": "1", "unit": 2}, {"layer": "1", "guide": str(tmp_path / "guide.png")}):
        finding = nm.look("dream", network, photo, steps=4, octaves=2, jitter=0, **asked)
        assert finding.numbers["after"] > finding.numbers["before"], asked
    assert "the class two" in nm.look("dream", network, photo, steps=1, target=1).summary
    assert nm.look("dream", network, photo, steps=1, smooth=1.5).numbers["picture"].shape == (34, 45, 3)


def test_wrong_options_say_what_is_right(network, photo):
    for options in ({"strength": 0}, {"octaves": 13}, {"budget": 0.6}, {"tile": 8}):
        with pytest.raises(UsageError, match="must lie"):
            nm.look("dream", network, photo, **options)
    with pytest.raises(UnknownName, match="'two'"):
        nm.look("dream", network, photo, target="twoo")
    with pytest.raises(UsageError, match="units 0 to 4"):
        nm.look("dream", network, photo, layer="0", unit=5)
    with pytest.raises(UsageError, match="guide"):
        nm.look("dream", network, photo, layer="0", guide=b"bytes")
