"""Spoken vowels, generated: a buzzing voice through the resonances of a mouth."""

from __future__ import annotations

import numpy as np

from ..errors import UsageError
from ..types import Dataset

RATE, SAMPLES = 8000, 512  # samples a second, and in one sound: 64 ms
# The first three resonances (formants, Hz) of ten American English vowels, means of 33 men (Peterson and Barney 1952).
FORMANTS = {
    "heed": (270, 2290, 3010),
    "hid": (390, 1990, 2550),
    "head": (530, 1840, 2480),
    "had": (660, 1720, 2410),
    "hod": (730, 1090, 2440),
    "hawed": (570, 840, 2410),
    "hood": (440, 1020, 2240),
    "who'd": (300, 870, 2240),
    "hud": (640, 1190, 2390),
    "heard": (490, 1350, 1690),
}
BANDWIDTHS = (60, 90, 150)  # Hz, how broad each resonance is


def vowels(*, count: int = 2000, noise: float = 0.2, seed: int = 0) -> Dataset:
    """Waveforms of ten vowels, count × 512 samples at 8,000 a second; generated, nobody spoke them.

    Each has a pitch of 90 to 260 Hz, a loudness of 0.1 to 1, random phases, a mouth that is up to 5 % longer or 25 %
    shorter than the mean man's, resonances that differ by up to 5 % each, and white noise of up to `noise` of its
    strength. Raises UsageError for fewer than one of each or a noise that is not from 0 to 1.

    >>> vowels(count=20).images.shape
    (20, 512)
    """
    if count != int(count) or not len(FORMANTS) <= count <= 100_000:
        raise UsageError(f"count is {count}; it must lie from {len(FORMANTS)} to 100,000.", "Choose such a number.")
    if not 0 <= noise <= 1:
        raise UsageError(f"noise is {noise}; it must lie from 0 to 1.", "Choose a number in between.")
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % len(FORMANTS)
    waves = np.empty((count, SAMPLES))
    for i, formants in enumerate(np.array(list(FORMANTS.values()), dtype=float)[labels]):
        shifted = formants * generator.uniform(0.95, 1.25) * generator.uniform(0.95, 1.05, 3)
        wave = voiced(generator.uniform(90, 260), shifted, generator)
        hiss = generator.uniform(0, noise) * generator.standard_normal(SAMPLES)
        waves[i] = generator.uniform(0.1, 1) * (wave + hiss)
    return Dataset(
        "vowels", waves, labels, tuple(FORMANTS),
        "Generated from a source and three resonances: real voices differ in more ways, so real speech is harder.",
        f"made here: {count} sounds, seed {seed}; resonances of Peterson and Barney (1952)",
    )  # fmt: skip


def voiced(pitch: float, formants: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """One vowel of standard deviation 1: overtones falling as 1/n, each through the resonances, in random phases."""
    overtone = np.arange(1, int(RATE / 2 / pitch) + 1)
    strength = gain(pitch * overtone, formants) / overtone
    phases = generator.uniform(0, 2 * np.pi, (len(overtone), 1))
    wave = strength @ np.sin(2 * np.pi * pitch * overtone[:, None] * np.arange(SAMPLES) / RATE + phases)
    return wave / wave.std()


def gain(frequency: np.ndarray, formants: np.ndarray) -> np.ndarray:
    """How much a row of resonators (Fant 1960) lets through at each frequency; 1 at 0 Hz.

    >>> gain(np.array([0.0, 500.0]), np.array([500.0, 1500.0, 2500.0])).round(2).tolist()
    [1.0, 9.76]
    """
    through = [f**2 / np.hypot(f**2 - frequency**2, b * frequency) for f, b in zip(formants, BANDWIDTHS, strict=True)]
    return np.prod(through, axis=0)


def spectra(waves: np.ndarray) -> np.ndarray:
    """Each sound's spectrum, count × 257 frequencies from 0 to 4,000 Hz: log of the amplitude under a Hann window.

    The mean of each is taken away, so loudness does not count.
    """
    amplitude = np.abs(np.fft.rfft(waves * np.hanning(waves.shape[1])))
    levels = np.log(amplitude + 1e-3)
    return levels - levels.mean(1, keepdims=True)
