"""Filters: drawn from the Gabor formula itself and found again; colours against closed forms and scikit-learn."""

import numpy as np
import pytest
import torch
from scipy.stats import beta
from sklearn.decomposition import TruncatedSVD
from sklearn.metrics import r2_score

import neuralmine as nm
from neuralmine.errors import UsageError
from neuralmine.lenses.filters import opponency


def gabor(size, degrees, frequency, phase, across=2.0, along=2.0):
    """Stripes at `degrees` counter-clockwise from lying, by the formula: a wave at right angles to them."""
    pattern = np.zeros((size, size))
    turn = np.radians(degrees + 90)
    for row in range(size):
        for column in range(size):
            x, y = column - size // 2, size // 2 - row
            u, v = x * np.cos(turn) + y * np.sin(turn), -x * np.sin(turn) + y * np.cos(turn)
            bump = np.exp(-(u**2) / (2 * along**2) - v**2 / (2 * across**2))
            pattern[row, column] = bump * np.cos(2 * np.pi * frequency * u + phase)
    return pattern


def network_with(weights, **more):
    count, colours, size, _ = weights.shape
    conv = torch.nn.Conv2d(colours, count, size)
    conv.weight.data = torch.tensor(weights, dtype=torch.float32)
    return nm.load(torch.nn.Sequential(conv, torch.nn.ReLU(), torch.nn.Flatten()), shape=(colours, 16, 16), **more)


KNOWN = [(0, 0.12, 0.3), (30, 0.2, 1.2), (90, 0.15, -0.7), (135, 0.3, 2.0), (60, 0.25, 0.0), (170, 0.18, 1.57)]


@pytest.fixture(scope="module")
def striped():
    tints = np.random.default_rng(1).uniform(0.2, 1, (len(KNOWN), 3))
    tints[0] = 1
    patterns = np.stack([gabor(9, *one) for one in KNOWN])
    return tints, patterns, nm.look("filters", network_with(tints[:, :, None, None] * patterns[:, None]), shuffles=40)


def test_stripes_drawn_by_the_formula_are_found_again(striped):
    _, _, seen = striped
    assert seen.numbers["r2"] == pytest.approx(1, abs=1e-5)
    for (degrees, frequency, _), found, cycles in zip(
        KNOWN, seen.numbers["orientation"], seen.numbers["frequency"], strict=True
    ):
        assert min(abs(found - degrees), 180 - abs(found - degrees)) < 0.5
        assert cycles == pytest.approx(frequency, rel=0.01)
    assert seen.checks[0].measured == len(KNOWN)
    assert seen.checks[0].passed


def test_the_principal_colour_is_scikit_learns(striped):
    tints, patterns, seen = striped
    assert np.abs(seen.numbers["colour"] - tints / np.linalg.norm(tints, axis=1, keepdims=True)).max() < 1e-6
    wanted = patterns * np.linalg.norm(tints, axis=1)[:, None, None]
    assert np.abs(seen.numbers["component"] - wanted).max() < 1e-6
    weights = np.random.default_rng(2).normal(size=(5, 3, 5, 5))
    found = nm.look("filters", network_with(weights), shuffles=20).numbers
    for i, weight in enumerate(weights):
        peer = TruncatedSVD(1, algorithm="arpack").fit(weight.reshape(3, -1))
        line = peer.components_[0] * peer.singular_values_[0]
        mine = found["component"][i].ravel()
        assert min(np.abs(mine - line).max(), np.abs(mine + line).max()) < 1e-5


def test_r2_is_scikit_learns_and_no_formula_near_by_fits_better():
    weights = np.random.default_rng(3).normal(size=(6, 1, 7, 7))
    seen = nm.look("filters", network_with(weights), shuffles=20).numbers
    for component, fitted, r2 in zip(seen["component"], seen["gabor"], seen["r2"], strict=True):
        assert r2 == pytest.approx(r2_score(component.ravel(), fitted.ravel()), abs=1e-9)
        brute = 0.0  # every function of a coarse grid, amplitude and phase solved by lstsq
        for degrees in range(0, 180, 20):
            for frequency in (0.1, 0.17, 0.25, 0.35, 0.45):
                for width in (1.0, 2.0, 4.0):
                    pair = [gabor(7, degrees, frequency, phase, width, width).ravel() for phase in (0, np.pi / 2)]
                    answer = np.linalg.lstsq(np.stack(pair, 1), component.ravel(), rcond=None)[0]
                    brute = max(brute, r2_score(component.ravel(), answer @ np.stack(pair)))
        assert r2 >= brute - 1e-6


def test_opponency_by_closed_form():
    grey = np.ones((1, 3, 3, 3)) * np.arange(9).reshape(3, 3)
    red_against_green = grey * np.array([1, -1, 0])[:, None, None]
    red = grey * np.array([1, 0, 0])[:, None, None]
    seen = nm.look("filters", network_with(np.concatenate([grey, red_against_green, red])), shuffles=20)
    assert seen.numbers["opponency"] == pytest.approx([0, 1, 2 / 3], abs=1e-6)


def test_the_colour_null_is_a_beta_distribution():
    random = opponency(np.random.default_rng(5).standard_normal((20000, 3, 5, 5)))
    for level in (0.05, 0.5, 0.95):  # 2 of 3 axes of 25 pixels are off the grey one
        assert np.quantile(random, level) == pytest.approx(beta.ppf(level, 25, 12.5), abs=0.004)
    seen = nm.look("filters", network_with(random_weights(2)), shuffles=400, seed=1)
    assert np.quantile(seen.numbers["opponency_null"], 0.95) == pytest.approx(beta.ppf(0.95, 25, 12.5), abs=0.03)


def random_weights(seed, count=60):
    return np.random.default_rng(seed).standard_normal((count, 3, 5, 5))


def test_random_filters_are_not_called_anything():
    seen = nm.look("filters", network_with(random_weights(7)), shuffles=200)
    for check in seen.checks:
        assert check.measured / 60 < 0.15
    assert seen.numbers["r2_null"].shape == (200,)


def test_only_a_convolution_of_the_picture_will_do():
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3, padding=1), torch.nn.Conv2d(3, 2, 3), torch.nn.Flatten())
    net = nm.load(module, shape=(3, 8, 8), mean=[0.4, 0.5, 0.6], std=[0.2, 0.2, 0.3])
    assert nm.look("filters", net, shuffles=20).provenance["layer"] == "0"
    with pytest.raises(UsageError, match=r"'1' is no convolution of the picture itself\. Choose 0"):
        nm.look("filters", net, layer="1")
    with pytest.raises(UsageError, match="No convolution"):
        nm.look("filters", nm.load("digits"))
    with pytest.raises(UsageError, match="1 × 1"):
        nm.look("filters", nm.load(torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1)), shape=(3, 8, 8)))


def test_a_network_that_normalises_inside_still_reads_the_picture():
    class Inside(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 2, 3)

        def forward(self, x):
            return self.conv((x - 0.5) / torch.tensor([0.2, 0.3, 0.4])[:, None, None]).flatten(1)

    assert nm.look("filters", nm.load(Inside(), shape=(3, 8, 8)), shuffles=20).provenance["layer"] == "conv"


def test_a_grey_network_has_no_colour():
    seen = nm.look("filters", network_with(np.random.default_rng(1).normal(size=(3, 1, 5, 5))), shuffles=20)
    assert not seen.numbers["opponency"].any()
    assert seen.checks[1].passed is None
    assert "grey" in seen.summary
