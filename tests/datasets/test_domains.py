"""Sounds, names and tumours: against signal theory, the colour wheel by hand, and scikit-learn's own copy."""

import numpy as np
import pytest
from matplotlib.colors import XKCD_COLORS, rgb_to_hsv, to_rgb
from scipy.signal import find_peaks, freqs
from sklearn.datasets import load_breast_cancer

from neuralmine import datasets
from neuralmine.datasets.colour_names import words
from neuralmine.datasets.vowels import BANDWIDTHS, FORMANTS, RATE, SAMPLES, gain, spectra, voiced
from neuralmine.errors import UsageError


def test_a_vowel_sounds_at_whole_multiples_of_its_pitch_as_strong_as_its_resonances_let_through():
    pitch, formants = RATE / SAMPLES * 12, np.array([700.0, 1200.0, 2400.0])  # 12 whole periods: no leakage
    amplitude = np.abs(np.fft.rfft(voiced(pitch, formants, np.random.default_rng(0)))) / SAMPLES * 2
    places = 12 * np.arange(1, 22)
    assert np.delete(amplitude, np.append(places, 0)).max() < 1e-9
    # Each resonator is a damped oscillator of the second order: scipy's frequency response of its equation.
    response = np.ones(len(places))
    for formant, width in zip(formants, BANDWIDTHS, strict=True):
        full, damping = 2 * np.pi * formant, 2 * np.pi * width
        response = response * np.abs(freqs([full**2], [1, damping, full**2], 2 * np.pi * pitch * np.arange(1, 22))[1])
    wanted = response / np.arange(1, 22)
    assert amplitude[places] / amplitude[12] == pytest.approx(wanted / wanted[0], rel=1e-6)


@pytest.mark.parametrize("name", ["heed", "hod", "who'd"])
def test_the_resonances_are_where_they_were_measured(name):
    frequency = np.arange(50.0, 3990.0)
    peaks = frequency[find_peaks(gain(frequency, np.array(FORMANTS[name])))[0]]
    assert all(np.abs(peaks - formant).min() < 20 for formant in FORMANTS[name])


def test_vowels_are_repeatable_even_and_loudness_does_not_tell():
    data = datasets.load("vowels", count=40, seed=2)
    assert np.array_equal(data.images, datasets.load("vowels", count=40, seed=2).images)
    assert not np.array_equal(data.images, datasets.load("vowels", count=40, seed=3).images)
    assert np.bincount(data.labels).tolist() == [4] * 10
    assert "enerated" in data.note
    assert spectra(100 * data.images) == pytest.approx(spectra(200 * data.images), abs=0.02)
    for wrong in ({"count": 9}, {"noise": 1.5}):
        with pytest.raises(UsageError):
            datasets.load("vowels", **wrong)


def test_a_colour_name_has_the_hue_people_gave_it_and_its_letters():
    data = datasets.load("colour-names")
    kinds = dict(zip(words(), np.array(data.classes)[data.labels], strict=True))
    assert len(kinds) == 949
    assert [kinds[name] for name in ("red", "pink", "orange", "grass green", "royal blue", "violet")] == [
        "red or pink", "red or pink", "brown, orange or yellow", "green", "blue", "purple",
    ]  # fmt: skip
    hues = 360 * rgb_to_hsv([to_rgb(colour) for colour in XKCD_COLORS.values()])[:, 0]
    hues = hues.round(6)
    assert np.bincount(data.labels).tolist() == [
        sum((hues < 20) | (hues >= 310)), *(sum((a <= hues) & (hues < b)) for a, b in ((20, 70), (70, 165), (165, 255), (255, 310))),
    ]  # fmt: skip
    # Rows of one to three letters, a name's ends being blanks: those of "mint" by hand; rare rows are left out.
    column = {tuple(values): i for i, values in enumerate(data.images.T.tolist())}
    for letters in ("min", "int", " mi", "nt "):
        wanted = tuple(float(any(letters in f" {word} " for word in name.split())) for name in words())
        assert wanted in column


def test_tumours_are_scikit_learns():
    data, wanted = datasets.load("tumours"), load_breast_cancer()
    assert np.array_equal(data.images, wanted.data)
    assert [data.classes[i] for i in data.labels[:3]] == [wanted.target_names[i] for i in wanted.target[:3]]
