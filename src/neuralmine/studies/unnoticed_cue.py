from __future__ import annotations

import numpy as np
from scipy.ndimage import zoom

from ..architectures import build
from ..datasets import load
from ..networks.torch_module import network_of
from ..progress import over
from ..tracing import trace
from ..training import train
from ..types import Check, Dataset, Finding, Network, Verdict
from ..views import Bars, Grid

SIDE, CUE, NOISE = 32, 2, 2  # pixels, and grey levels of 255
STARTS, TRAINING, TEST = 4, 1000, 600
DARKEST, LIGHTEST = 60, 200  # the digits' grey levels: a photo's, not black on white


def unnoticed_cue(*, seed: int = 0) -> Verdict:
    """Does a net find a pattern of ±2 of 255 grey levels that is planted in pictures?

    Digits, enlarged to 32 × 32 grey pixels of 8 bits with a camera's noise, get labels that have nothing to do with
    the digit. In the pictures of class A a fixed pattern of +2 and −2 grey levels is added, in those of class B it is
    taken away. A small net learns the classes and is asked about new pictures, about plain grey ones that hold nothing
    but the cue and noise, and about pictures without it. Null: a net that learned from pictures without the cue.
    The threshold of sight is that of Chou and Li (1995): in a plain area 3 grey levels at the least.
    """
    digits = load("digits")
    right, seen = np.zeros((4, STARTS)), {}
    for run in over(range(STARTS), "start"):
        generator = np.random.default_rng([seed, run])
        cue = pattern(generator)
        order = generator.permutation(len(digits))[: TRAINING + TEST]
        larger = zoom(digits.images[order], (1, SIDE / 8, SIDE / 8), order=1, grid_mode=True, mode="nearest")
        plain = np.asarray(larger, dtype=np.float64)
        labels = generator.integers(0, 2, len(order))
        grey = np.full_like(plain, 0.5)
        planted, without, alone = (
            pictures(one, labels, cue * strength, generator) for one, strength in ((plain, 1), (plain, 0), (grey, 1))
        )
        known, asked = slice(0, TRAINING), slice(TRAINING, None)
        net = _taught(planted[known], labels[known], seed + run)
        blind = _taught(without[known], labels[known], seed + run)
        right[:, run] = [
            _right(net, planted[asked], labels[asked]),
            _right(net, alone[asked], labels[asked]),
            _right(net, without[asked], labels[asked]),
            _right(blind, without[asked], labels[asked]),
        ]
        seen = {"planted": planted[0], "without": without[0], "cue": cue}
    return judged(right, seen)


def judged(right: np.ndarray, seen: dict[str, np.ndarray]) -> Verdict:
    """The verdict on how often nets were right: with the cue, on the cue alone, without it, and never taught with it."""
    names = ("new pictures with the cue", "the cue alone, on grey", "the same pictures without it", "taught without it")
    means, largest = right.mean(1), float(np.abs(seen["cue"]).max())
    least = float(just_noticeable(seen["planted"]).min())
    finds = bool(right[:2].min() >= 0.9)
    nothing_else = bool(np.abs(means[2:] - 0.5).max() < 0.05)
    below = largest < least
    finding = Finding(
        {"right": right, **seen},
        (
            Bars(f"right about the class, mean of {right.shape[1]} nets (0.5 is chance)", names, means, 0, "share", 1.0),
            Grid("a picture with the cue", seen["planted"] / 255, "ink", 1.0),
            Grid("the same without", seen["without"] / 255, "ink", 1.0),
            Grid("the cue, grey levels", seen["cue"], "signed", float(CUE)),
        ),
        (
            Check("right about new pictures", float(means[0]), 0.5, (float(right[0].min()), float(right[0].max())), bool(right[0].min() >= 0.9), f"Mean and range of {right.shape[1]} nets; it fails when any is below 90 %."),
            Check("right on the cue alone", float(means[1]), 0.5, (float(right[1].min()), float(right[1].max())), bool(right[1].min() >= 0.9), "Plain grey with noise and the cue: nothing else can tell."),
            Check("without the cue", float(means[2:].mean()), 0.5, (float(right[2:].min()), float(right[2:].max())), nothing_else, "The same nets on pictures without it, and nets taught without it: half must be right, or something else tells."),
            Check("the cue against the just noticeable difference", largest, least, None, below, "The largest grey level of the cue, beside the smallest threshold of Chou and Li (1995) at the greys of a picture that holds it. It is a model of one pixel's visibility; no person was asked here."),
        ),
        f"A cue of ±{CUE} of 255 grey levels: {100 * means[0]:.1f} % right with it, {100 * means[2]:.1f} % without.",
    )  # fmt: skip
    return Verdict(
        "Deep learning succeeds because it can: find patterns humans would never notice",
        "Thread 3 — Deep Learning: How Neural Networks Actually Think (2025)",
        f"A net is at least 90 % right on a planted cue of ±{CUE}/255 alone, and half right without it; and people do not see the cue.",
        f"{100 * means[0]:.1f} ± {100 * right[0].std(ddof=1):.1f} % on new pictures, {100 * means[1]:.1f} ± {100 * right[1].std(ddof=1):.1f} % on the cue alone (n = {right.shape[1]} nets). "
        f"The eye's half is not measured here: ±{CUE} lies below the published threshold of {least:.0f} levels",
        f"{100 * means[2]:.1f} % for the same nets without the cue, {100 * means[3]:.1f} % for nets taught without it",
        "partly" if finds and nothing_else and below else "not here",
        finding,
    )


def pattern(generator: np.random.Generator) -> np.ndarray:
    """A fixed pattern of +CUE and −CUE that adds up to 0 in every square of 2 × 2 pixels, so that no area gets lighter."""
    signs = generator.choice([-CUE, CUE], (SIDE // 2, SIDE // 2))
    return np.kron(signs, np.array([[1, -1], [-1, 1]])).astype(np.float64)


def pictures(plain: np.ndarray, labels: np.ndarray, cue: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """8-bit grey levels of pictures from 0 to 1, noise and all, with the cue added (class 1) or taken away (class 0)."""
    grey = DARKEST + (LIGHTEST - DARKEST) * plain
    noisy = np.rint(grey + generator.normal(0, NOISE, grey.shape))
    return noisy + np.where(labels, 1, -1)[:, None, None] * cue


def just_noticeable(grey: np.ndarray) -> np.ndarray:
    """How many grey levels of 255 a change must have to be seen on that background (Chou and Li 1995, eq. 4).

    >>> just_noticeable(np.array([0, 127, 255])).tolist()
    [20.0, 3.0, 6.0]
    """
    dark = 17 * (1 - np.sqrt(np.minimum(grey, 127) / 127)) + 3
    return np.where(grey <= 127, dark, 3 / 128 * (grey - 127.0) + 3)


def _taught(images: np.ndarray, labels: np.ndarray, seed: int) -> Network:
    module = build(
        {"sizes": [SIDE * SIDE, 16, 2], "activation": "relu", "output": "linear", "dtype": "float32", "seed": seed}
    )
    network = network_of(module, shape=(SIDE, SIDE), labels=("B", "A"), mean=127.5, std=8.0)
    data = Dataset("planted", images, labels, ("B", "A"))
    for _ in train(network, data, optimizer="adam", lr=0.001, batch=32, epochs=30, schedule="cosine", seed=seed):
        pass
    return network


def _right(network: Network, images: np.ndarray, labels: np.ndarray) -> float:
    return float((trace(network, images).output.argmax(1).numpy() == labels).mean())
