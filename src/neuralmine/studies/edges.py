from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.stats import binom

from ..networks.catalogue import load_preset
from ..types import Check, Finding, Network, Verdict
from ..views import Bars, Grid

NULLS, STARTS = 100, 8


def edges(*, seed: int = 0) -> Verdict:
    """Do the first hidden neurons of a trained digit net pick up little edges?

    Each of the 16 weight pictures (28 × 28) of the bundled 784-16-16-10 is compared with a bank of localised Gabor
    patches at every place; the best correlation counts. The fair null keeps each picture's spatial frequencies and
    where its strength lies, and draws the phases at random; untrained weights, which flatter every edge test, are shown beside it.
    """
    generator = np.random.default_rng(seed)
    bank = gabors(28)
    trained = _pictures(load_preset("784-16-16-10"))
    found = best_match(trained, bank)
    null = np.array([best_match(phases_shuffled(trained, generator), bank) for _ in range(NULLS)])
    untrained = np.array(
        [best_match(_pictures(load_preset("784-16-16-10", trained=False, seed=s)), bank) for s in range(STARTS)]
    )
    above = found > np.quantile(null, 0.95, axis=0)
    chance = float(binom.sf(int(above.sum()) - 1, len(found), 0.05))
    verdict = "holds" if above.mean() >= 0.9 else "partly" if chance < 0.05 else "not here"
    order = np.argsort(-found)
    finding = Finding(
        {"match": found, "null": null, "untrained": untrained, "above": above.astype(np.int8)},
        (
            Bars("best match with an edge, neuron by neuron", tuple(map(str, order)), found[order], None, "correlation", 1.0),
            *(Grid(f"neuron {unit}, match {found[unit]:.2f}", trained[unit], "signed") for unit in order[:3]),
        ),
        (
            Check("mean best match with an edge", float(found.mean()), float(null.mean()),
                  (float(np.quantile(null.mean(1), 0.025)), float(np.quantile(null.mean(1), 0.975))),
                  bool(found.mean() > np.quantile(null.mean(1), 0.95)), "Null: the same frequencies and regions with random phases."),
            Check("neurons above their own null's 95th percentile", float(above.sum()), 0.05 * len(found), None, chance < 0.05,
                  f"Of {len(found)}; by chance this many or more come with probability {chance:.3g}."),
            Check("the same for untrained nets", float(untrained.mean()), float(null.mean()), None, None,
                  f"Mean of {STARTS} random starts: a null that makes almost anything look like an edge."),
        ),
        f"{int(above.sum())} of {len(found)} first-layer neurons match an edge better than their phase-shuffled selves.",
    )  # fmt: skip
    return Verdict(
        "our hope is that each neuron in the second layer of the network corresponds with the various relevant little edges",
        "The Inner Workings of Neural Network |2| (2023)",
        "Each weight picture (here: nine in ten) matches a localised edge better than itself with random phases.",
        f"mean best correlation {found.mean():.3f}; {int(above.sum())} of {len(found)} neurons above their own null (one net, MNIST)",
        f"{null.mean():.3f} with random phases, {0.05 * len(found):.1f} neurons expected; untrained {untrained.mean():.3f}",
        verdict,
        finding,
    )


def gabors(size: int) -> np.ndarray:
    """Localised edges and bars: 8 directions × 3 wavelengths × 2 widths × 2 phases, centred, mean 0, norm 1."""
    rows, columns = np.mgrid[:size, :size] - size // 2
    bank = []
    for angle in np.arange(8) * np.pi / 8:
        across = columns * np.cos(angle) + rows * np.sin(angle)
        for wavelength in (4, 6, 9):
            for width in (1.5, 2.5):
                for phase in (0, np.pi / 2):
                    patch = np.exp(-(rows**2 + columns**2) / (2 * width**2)) * np.cos(
                        2 * np.pi * across / wavelength + phase
                    )
                    bank.append(patch - patch.mean())
    return np.stack([patch / np.linalg.norm(patch) for patch in bank])


def best_match(pictures: np.ndarray, bank: np.ndarray) -> np.ndarray:
    """For each picture the largest magnitude of its correlation with any patch at any place (wrapping round)."""
    centred = pictures - pictures.mean((1, 2), keepdims=True)
    centred /= np.linalg.norm(centred, axis=(1, 2), keepdims=True)
    seen = np.fft.fft2(centred)[:, None] * np.conj(np.fft.fft2(bank))[None]
    return np.abs(np.fft.ifft2(seen).real).max((1, 2, 3))


def phases_shuffled(pictures: np.ndarray, generator: np.random.Generator, region: float = 4) -> np.ndarray:
    """Pictures with the same strength at every spatial frequency and in every region, and the phases of noise.

    `region` is how many pixels wide a region is. Weights are strong where digits have ink. A null that spread them
    evenly would lose to any picture with a middle.
    """
    where = np.sqrt(gaussian_filter(pictures**2, (0, region, region))) + 1e-12
    noise = np.fft.fft2(generator.standard_normal(pictures.shape))
    strength = np.abs(np.fft.fft2(pictures / where))
    return where * np.fft.ifft2(strength * noise / np.maximum(np.abs(noise), 1e-12)).real


def _pictures(network: Network) -> np.ndarray:
    weight = network.module.get_parameter("hidden1.sum.weight").detach().numpy()
    return weight.reshape(len(weight), *network.shape).astype(np.float64)
