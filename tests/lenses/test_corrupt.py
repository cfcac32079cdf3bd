"""Damaged pictures against kernels and formulas written out; cosines and probabilities against a forward pass by hand."""

import numpy as np
import pytest
import torch

import neuralmine as nm
from neuralmine.errors import DataError
from neuralmine.lenses.corrupt import damaged


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(2).uniform(0, 1, (3, 16, 16)).astype(np.float32).astype(np.float64)


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3),
        torch.nn.ReLU(inplace=True),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(294, 4),
    )


def test_blur_is_a_gaussian_kernel_written_out(picture):
    sd = 0.5 * 16 / 8
    offsets = np.arange(-4, 5)  # scipy cuts at four standard deviations
    kernel = np.exp(-(offsets**2) / (2 * sd**2))
    kernel /= kernel.sum()
    wide = np.pad(picture, ((0, 0), (4, 4), (4, 4)), mode="symmetric")
    wanted = np.zeros((3, 16, 16))
    for i, one in enumerate(kernel):
        for j, other in enumerate(kernel):
            wanted += one * other * wide[:, i : i + 16, j : j + 16]
    assert np.abs(damaged(picture, "blur", 0.5, picture) - wanted).max() < 1e-12


def test_darkness_and_noise_by_formula(picture):
    assert damaged(picture, "darkness", 0.25, picture) == pytest.approx(np.exp(3.25 * np.log(picture)))
    noise = np.random.default_rng(1).standard_normal(picture.shape)
    by_hand = np.minimum(np.maximum(picture + 0.4 * noise, 0), 1)
    assert np.array_equal(damaged(picture, "noise", 0.4, noise), by_hand)
    for kind in ("blur", "darkness", "noise"):
        assert np.array_equal(damaged(picture, kind, 0, noise), picture)


def cosine(one, other):
    one, other = one.detach().double().flatten().numpy(), other.detach().double().flatten().numpy()
    return (one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum())


@pytest.mark.parametrize("kind", ["blur", "darkness", "noise"])
def test_cosines_probabilities_and_null_by_hand(module, picture, kind):
    net = nm.load(module, shape=(3, 16, 16), mean=0.4, std=0.25)
    seen = nm.look("corrupt", net, picture, kind=kind, severity=0.8, steps=3, shuffles=2, seed=5).numbers

    def forward(one):
        value, out = torch.tensor((one - 0.4) / 0.25, dtype=torch.float32)[None], []
        for part in module:
            value = part(value.clone())
            out.append(value)
        return out

    clean = forward(picture)
    said = clean[-1].argmax().item()
    assert seen["severities"].tolist() == [0, 0.4, 0.8]
    assert seen["amounts"] == pytest.approx({"blur": [0, 0.8, 1.6], "darkness": [1, 4.6, 8.2]}.get(kind, [0, 0.4, 0.8]))
    assert seen["pictures"].shape == (3, 3, 16, 16)
    for step, one in enumerate(seen["pictures"]):
        codes = forward(one)
        for layer in range(5):
            assert seen["cosine"][step, layer] == pytest.approx(cosine(clean[layer], codes[layer]), abs=1e-5)
        assert seen["probability"][step] == pytest.approx(codes[-1].softmax(1)[0, said].item(), abs=1e-6)
    generator = np.random.default_rng(5)
    generator.standard_normal(picture.shape)  # the noise
    for row in seen["null"]:
        codes = forward(picture.reshape(3, 256)[:, generator.permutation(256)].reshape(3, 16, 16))
        assert row == pytest.approx([cosine(a, b) for a, b in zip(clean, codes, strict=True)], abs=1e-5)
    mean = seen["null"].mean(0)
    assert seen["kept"] == pytest.approx(np.maximum(0, (seen["cosine"] - mean) / (1 - mean)), abs=1e-9)
    assert seen["kept"][0] == pytest.approx(1, abs=1e-6)


def test_where_they_part_and_meet():
    """A layer that keeps only what blurring leaves alone (the mean) makes clean and blurred the same again."""
    edges = torch.nn.Conv2d(1, 1, (1, 2), bias=False)
    edges.weight.data = torch.tensor([[[[1.0, -1.0]]]])
    stripes = np.zeros((1, 8, 8))
    stripes[..., :4:2] = 1  # on the left half only, so that shuffled pixels have other means
    again = torch.nn.Sequential(torch.nn.Identity(), torch.nn.AvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(4, 2))
    seen = nm.look("corrupt", nm.load(again, shape=(1, 8, 8)), stripes, severity=1.0)
    assert seen.numbers["kept"][-1, 0] < 0.9
    assert seen.numbers["kept"][-1, 1] > 0.9
    assert "They meet most from 0 to 1" in seen.summary
    whole = torch.nn.Sequential(torch.nn.Identity(), torch.nn.AvgPool2d(8), torch.nn.Flatten(), torch.nn.Linear(1, 2))
    seen = nm.look("corrupt", nm.load(whole, shape=(1, 8, 8)), stripes, severity=1.0)
    assert seen.numbers["kept"][-1, 1] == pytest.approx(1), "one positive number is always like another"
    parting = torch.nn.Sequential(torch.nn.Identity(), edges, torch.nn.Flatten(), torch.nn.Linear(56, 2))
    ramp = np.tile(np.linspace(0, 1, 8), (8, 1))[None] ** 3
    ramp[0, 3, 3] = 1
    seen = nm.look("corrupt", nm.load(parting, shape=(1, 8, 8)), ramp, severity=0.6)
    assert "They part most from 0 to 1" in seen.summary
    assert seen.numbers["kept"][-1, 1] < seen.numbers["kept"][-1, 0]


def test_grey_pictures(net, digits):
    seen = nm.look("corrupt", net, digits.images[3], kind="darkness")
    assert seen.numbers["pictures"].shape == (6, 1, 8, 8)
    assert np.array_equal(seen.numbers["pictures"][0, 0], digits.images[3])
    assert seen.numbers["cosine"][0].tolist() == [1] * 7
    assert [view.kind for view in seen.views] == ["picture", "lines", "lines"]


def test_any_form_of_a_picture(module, picture, tmp_path):
    from PIL import Image

    net = nm.load(module, shape=(3, 16, 16))
    seen = nm.look("corrupt", net, picture, steps=2).numbers["cosine"]
    for form in (picture.transpose(1, 2, 0), picture[None], picture.tolist(), torch.tensor(picture)):
        assert np.array_equal(nm.look("corrupt", net, form, steps=2).numbers["cosine"], seen)
    Image.new("RGB", (40, 30), (255, 0, 51)).save(tmp_path / "one.png")
    seen = nm.look("corrupt", net, tmp_path / "one.png", steps=2).numbers["pictures"][0]
    assert np.abs(seen - np.array([1, 0, 0.2])[:, None, None]).max() < 1e-6
    with pytest.raises(DataError, match="Divide"):
        nm.look("corrupt", net, picture * 300)
