"""Each measure against what can be worked out by hand, or by another's program."""

import numpy as np
import pytest
import torch

import neuralmine as nm
from neuralmine.errors import UsageError
from neuralmine.lenses.dream_measures import oriented, spectrum, ssim
from neuralmine.networks.vision import load_vision


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 6, 3), torch.nn.Conv2d(6, 6, 3), torch.nn.MaxPool2d(2), torch.nn.Conv2d(6, 8, 3)]
    return nm.load(torch.nn.Sequential(*layers), shape=(3, 16, 16))


@pytest.fixture(scope="module")
def photo():
    return np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def finding(network, photo):
    return nm.look("dream_measures", network, photo, steps=3, octaves=2, budget=0.06, shuffles=3)


def test_ssim_is_scikit_images():
    metrics = pytest.importorskip("skimage.metrics")
    generator = np.random.default_rng(0)
    one = generator.uniform(0, 1, (3, 30, 41))
    for size in (0.01, 0.3):
        other = np.clip(one + size * generator.standard_normal(one.shape), 0, 1)
        wanted = metrics.structural_similarity(one, other, channel_axis=0, data_range=1.0)
        assert ssim(one, other) == pytest.approx(wanted, abs=1e-9)
    assert ssim(one, one) == 1


@pytest.mark.parametrize(("down", "right", "lines"), [(0, 8, 4), (8, 0, 0), (8, 8, 2), (8, -8, 6)])
def test_a_wave_has_its_frequency_and_direction(down, right, lines):
    rows, columns = np.mgrid[:64, :64]
    wave = np.cos(2 * np.pi * (down * rows + right * columns) / 64)
    mean, strongest, rings, angles = spectrum(np.stack([wave, 0 * wave, 2 * wave]))
    assert mean == pytest.approx(np.hypot(down, right) / 64, rel=0.02)
    assert abs(strongest - np.hypot(down, right) / 64) < 1 / 64
    assert rings.sum() == pytest.approx(1)
    assert angles.argmax() == lines
    assert angles.max() > 0.95
    assert oriented(np.stack([wave] * 3)) > 0.99


def test_noise_has_no_direction_and_the_frequency_of_a_square_of_frequencies():
    noise = np.random.default_rng(0).standard_normal((3, 96, 96))
    mean, _, _, angles = spectrum(noise)
    f = np.abs(np.fft.fftfreq(96))
    assert mean == pytest.approx(np.hypot(f[:, None], f).mean(), rel=0.02)
    assert np.ptp(angles) < 0.06
    assert oriented(noise) < 0.15


def test_numbers_by_hand(network, photo, finding):
    numbers = finding.numbers
    assert finding.provenance["layers"] == ["0", "1", "2", "3"]
    dream = nm.look("dream", network, photo, layer="1", steps=3, octaves=2, budget=0.06, shuffles=3)
    change = np.moveaxis(dream.numbers["change"], -1, 0)
    assert numbers["objective"][1] == pytest.approx(
        [float(dream.numbers["before"]), float(dream.numbers["after"])], rel=1e-5
    )
    assert numbers["shuffled"][1] == pytest.approx(dream.numbers["shuffled"], rel=1e-5)
    assert numbers["frequency"][1] == pytest.approx(spectrum(change)[0], rel=1e-5)
    raw = nm.look("dream", network, photo, layer="1", steps=3, octaves=2).numbers
    kept, steps = numbers["distortion"], np.moveaxis(raw["picture"], -1, 0)
    before = np.moveaxis(raw["original"], -1, 0)
    assert kept[1, 0] == pytest.approx(float(np.sqrt(np.square(raw["change"].astype(float)).mean())), rel=1e-5)
    assert kept[1, 1] == pytest.approx(1 - ssim(before, steps), rel=1e-5)
    assert kept[1, 2] == pytest.approx(1 - ssim(before, before + change), rel=1e-4)


def test_at_an_equal_gain_every_layer_has_it(network, photo, finding):
    numbers = finding.numbers
    gains = numbers["objective"][:, 1] / numbers["objective"][:, 0]
    assert float(numbers["gain"]) == pytest.approx(gains.min())
    least = int(gains.argmin())
    assert numbers["distortion"][least, 3] == pytest.approx(0.06, rel=1e-2)
    assert (numbers["distortion"][:, 3] <= 0.0601).all()
    # L2 at the equal gain is a part of the whole change's: put that part in by hand, and ask the layer.
    most = int(gains.argmax())
    dream = nm.look("dream", network, photo, layer=finding.provenance["layers"][most], steps=3, octaves=2, budget=0.06)
    part = dream.numbers["original"] + dream.numbers["change"] * numbers["distortion"][most, 3] / 0.06
    fed = torch.as_tensor(np.moveaxis(part, -1, 0)[None]).float()
    with torch.no_grad():
        value = float(network.module[: most + 1](fed).square().mean())
    assert value / numbers["objective"][most, 0] == pytest.approx(float(numbers["gain"]), rel=1e-2)


def test_a_net_without_animals_says_so_and_the_verdict_is_a_sentence(finding):
    assert "never saw animals" in finding.summary
    assert "Far fewer distortions in the final layers" in finding.summary
    assert "animals" not in finding.numbers
    names = [check.name for check in finding.checks]
    assert "layers that gain more than by shuffled changes" in names
    assert sum(name.startswith("fewer distortions") for name in names) == 5
    assert all(check.null is not None for check in finding.checks)
    assert finding.views[-1].kind == "table"


def test_another_network_looks_for_animals(monkeypatch):
    network = load_vision("squeezenet", trained=False)
    other = load_vision("lite0", trained=False, seed=3)
    monkeypatch.setattr("neuralmine.networks.load", {"lite0": other, "squeezenet": network}.__getitem__)
    photo = np.random.default_rng(1).integers(0, 256, (60, 70, 3), dtype=np.uint8)
    options = {"layers": "features.0,features.2", "steps": 1, "octaves": 1, "shuffles": 2}
    finding = nm.look("dream_measures", network, photo, **options)
    wanted = float(nm.trace(other, photo).prediction.scores[:398].sum())
    assert float(finding.numbers["animals_photo"]) == pytest.approx(wanted)
    assert finding.numbers["animals_shuffled"].shape == (2, 2)
    assert finding.provenance["judge"] == "lite0"
    none = nm.look("dream_measures", network, photo, judge="none", **options)
    assert "animals" not in none.numbers
    with pytest.raises(UsageError, match="its own dreams"):
        nm.look("dream_measures", network, photo, judge="squeezenet", **options)
