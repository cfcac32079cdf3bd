"""Moved pictures against array slicing, rot90 and torch's own resampling; cosines against a forward pass by hand."""

import numpy as np
import pytest
import torch

import neuralmine as nm
from neuralmine.errors import DataError, UsageError
from neuralmine.lenses.invariance import moved


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(2).uniform(0, 1, (3, 12, 12)).astype(np.float32).astype(np.float64)


def convolutional(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3),
        torch.nn.ReLU(inplace=True),
        torch.nn.AdaptiveAvgPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(24, 3),
    )


def test_a_shift_is_exact(picture):
    by_hand = np.concatenate([np.ones((3, 12, 4)) * picture.mean((1, 2))[:, None, None], picture[:, :, :8]], 2)
    assert np.array_equal(moved(picture, "shift", 4), by_hand)
    assert np.array_equal(moved(picture, "shift", 0), picture)


@pytest.mark.parametrize("quarters", [1, 2, 3, 4])
def test_quarter_turns_are_numpys(picture, quarters):
    turned = moved(picture, "rotation", 90 * quarters)
    assert np.abs(turned - np.rot90(picture, quarters, axes=(1, 2))).max() < 1e-9


@pytest.mark.parametrize(("kind", "amount"), [("scale", 1.5), ("scale", 1.8), ("rotation", 30.0), ("scale", 0.6)])
def test_scaling_and_turning_are_torchs(picture, kind, amount):
    """grid_sample fills with 0, so the mean colour is taken off before and put back after."""
    means = picture.mean((1, 2))[:, None, None]
    turn = np.radians(amount)
    matrix = (
        np.eye(2) / amount
        if kind == "scale"  # in x, y with y down: a turn counter-clockwise reads from a place turned clockwise
        else np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    )
    theta = torch.tensor(np.concatenate([matrix, np.zeros((2, 1))], 1))[None]
    where = torch.nn.functional.affine_grid(theta, [1, 3, 12, 12], align_corners=False)
    given = torch.tensor(picture - means)[None]
    wanted = torch.nn.functional.grid_sample(given, where, padding_mode="zeros", align_corners=False)[0].numpy() + means
    assert np.abs(moved(picture, kind, amount) - wanted).max() < 1e-9


def cosine(one, other):
    one, other = one.detach().double().flatten().numpy(), other.detach().double().flatten().numpy()
    return (one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum())


def test_cosines_probabilities_and_null_by_hand(picture):
    module = convolutional()
    net = nm.load(module, shape=(3, 12, 12), mean=0.4, std=0.25)
    seen = nm.look("invariance", net, picture, kind="rotation", steps=3, most=60, shuffles=2, seed=5).numbers

    def forward(one):
        value, out = torch.tensor((one - 0.4) / 0.25, dtype=torch.float32)[None], []
        for part in module:
            value = part(value.clone())
            out.append(value)
        return out

    clean = forward(picture)
    said = clean[-1].argmax().item()
    assert seen["amounts"].tolist() == [0, 30, 60]
    for step, one in enumerate(seen["pictures"]):
        codes = forward(one)
        for layer in range(5):
            assert seen["cosine"][layer, step] == pytest.approx(cosine(clean[layer], codes[layer]), abs=1e-5)
        assert seen["probability"][step] == pytest.approx(codes[-1].softmax(1)[0, said].item(), abs=1e-6)
    generator = np.random.default_rng(5)
    for shuffle in range(2):
        order = generator.permutation(144)
        codes = forward(picture.reshape(3, 144)[:, order].reshape(3, 12, 12))
        for layer in range(5):
            assert seen["null"][layer, shuffle] == pytest.approx(cosine(clean[layer], codes[layer]), abs=1e-5)


def test_the_mean_over_a_map_keeps_what_the_map_loses():
    """Averaging a map over all places forgets where a thing is: on a plain ground, a shift leaves it as it was."""
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 1, 1, bias=False), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(1, 2)
    )
    dot = np.zeros((1, 10, 10))
    dot[0, 4:6, 1:3] = 1
    seen = nm.look("invariance", nm.load(module, shape=(1, 10, 10)), dot, most=4, steps=5).numbers
    assert seen["amounts"].tolist() == [0, 1, 2, 3, 4]
    ground = dot.mean()
    for step in (2, 3, 4):  # no pixel of the dot is where it was; the bare columns are filled with the mean
        bare = step * 10 * ground**2
        overlap = ground * 2 * min(step - 1, 2)  # the dot was in columns 1 and 2; these are bare now, or one of them is
        wanted = overlap / np.sqrt(4 * (4 + bare))
        assert seen["cosine"][0, step] == pytest.approx(wanted, abs=1e-6)
    assert seen["cosine"][1] == pytest.approx(1, abs=1e-12)


def test_any_form_of_a_picture_gives_the_same(picture):
    net = nm.load(convolutional(), shape=(3, 12, 12))
    seen = nm.look("invariance", net, picture, steps=3).numbers["cosine"]
    for form in (picture.transpose(1, 2, 0), picture[None], picture.tolist(), torch.tensor(picture), picture.ravel()):
        assert np.array_equal(nm.look("invariance", net, form, steps=3).numbers["cosine"], seen)


def test_grey_pictures_and_defaults(net, digits):
    seen = nm.look("invariance", net, digits.images[3])
    assert seen.numbers["amounts"].tolist() == [0, 1, 2]
    assert seen.numbers["pictures"].shape == (3, 1, 8, 8)
    assert np.array_equal(seen.numbers["pictures"][0, 0], digits.images[3])
    assert seen.numbers["cosine"][:, 0].tolist() == [1] * 7


@pytest.mark.parametrize(
    ("kind", "most"), [("shift", 8), ("shift", 1.5), ("scale", 1), ("scale", 21), ("rotation", 400)]
)
def test_amounts_that_do_not_fit(net, digits, kind, most):
    with pytest.raises(UsageError, match="Give"):
        nm.look("invariance", net, digits.images[0], kind=kind, most=most)


def test_values_beyond_one_are_refused(net, digits):
    with pytest.raises(DataError, match="Divide"):
        nm.look("invariance", net, digits.images[0] * 255)


def test_eight_bits_and_photos(tmp_path):
    from PIL import Image

    net = nm.load(convolutional(), shape=(3, 12, 12))
    eight = np.random.default_rng(3).integers(0, 256, (12, 12, 3)).astype(np.uint8)
    seen = nm.look("invariance", net, eight, steps=2).numbers["pictures"][0]
    assert np.abs(seen - eight.transpose(2, 0, 1) / 255).max() < 1e-12
    Image.new("RGB", (40, 30), (255, 0, 51)).save(tmp_path / "one.png")
    for form in (tmp_path / "one.png", str(tmp_path / "one.png"), Image.open(tmp_path / "one.png")):
        seen = nm.look("invariance", net, form, steps=2).numbers["pictures"][0]
        assert np.abs(seen - np.array([1, 0, 0.2])[:, None, None]).max() < 1e-6
