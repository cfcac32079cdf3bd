from __future__ import annotations

import numpy as np

from ..codes import probe
from ..progress import over
from ..types import Check, Finding, Verdict
from ..views import Lines, Table
from ._digit_cnn import codes, parts, taught, untrained

SIZES = (60, 120, 300, 600, 1200)
STARTS, UPDATES = 4, 200
NAMES = ("pixels", "learned", "untrained")
LAYER = "maps2"


def learned_features(*, seed: int = 0) -> Verdict:
    """Do features that a net has learned by itself serve an equal classifier better than the raw pixels?

    For five numbers of training pictures and four random draws of them, a small convolutional net is trained on just
    those pictures. Then the same linear classifier (ridge, its strength chosen by leave-one-out) learns from the same
    pictures: from their pixels, from the net's second layer of maps (256 numbers), and from that layer untrained. All
    are asked about the 450 test pictures.
    """
    train_part, test = parts()
    right = np.zeros((len(NAMES), STARTS, len(SIZES)))
    for run in over(range(STARTS), "start"):
        order = np.random.default_rng([seed, run]).permutation(len(train_part))
        for column, size in enumerate(SIZES):
            few = train_part.take(order[:size])
            epochs = max(1, round(UPDATES * 32 / max(size, 32)))
            nets = taught(few, seed + run, epochs), untrained(seed + run)
            rows = [
                (few.images.reshape(size, -1), test.images.reshape(len(test), -1)),
                *((codes(net, few.images, (LAYER,))[LAYER], codes(net, test.images, (LAYER,))[LAYER]) for net in nets),
            ]
            for row, (known, asked) in enumerate(rows):
                right[row, run, column] = (probe(known, few.labels, asked) == test.labels).mean()
    return judged(right, SIZES)


def judged(right: np.ndarray, sizes: tuple[int, ...]) -> Verdict:
    """The verdict on how often each kind of features was right: kinds × starts × training sizes."""
    means = right.mean(1)
    over_pixels, over_random = right[1] - right[0], right[1] - right[2]
    better, beyond = _above(over_pixels), _above(over_random)
    finding = Finding(
        {"right": right, "sizes": np.array(sizes)},
        (
            Lines("the same classifier on three kinds of features", np.array(sizes), dict(zip(NAMES, means, strict=True)), "training pictures", "right on unseen pictures"),
            Table(f"mean of {right.shape[1]} draws", ("pictures", *NAMES, "learned − pixels", "± sd", "learned − untrained", "± sd"),
                  tuple((size, *(float(v) for v in means[:, i]), *(float(f(d[:, i])) for d in (over_pixels, over_random) for f in (np.mean, _sd))) for i, size in enumerate(sizes))),
        ),
        (
            Check("sizes at which learned features beat the pixels", float(better.sum()), 0.0, None, bool(better.all()),
                  f"Of {len(sizes)}: the mean gain of {right.shape[1]} draws is above twice its standard error."),
            Check("sizes at which they beat the same layer untrained", float(beyond.sum()), 0.0, None, bool(beyond.all()),
                  "The same rule. What an untrained layer gives is the architecture's gift, not learned."),
        ),
        f"With {sizes[-1]} pictures: pixels {100 * means[0, -1]:.1f} %, learned {100 * means[1, -1]:.1f} %, untrained {100 * means[2, -1]:.1f} %.",
    )  # fmt: skip
    return Verdict(
        "Deep learning succeeds because it can: learn representations automatically",
        "Thread 3 — Deep Learning: How Neural Networks Actually Think (2025)",
        "The same classifier is right more often on learned features than on pixels, and than on the same layer untrained, at every number of training pictures.",
        f"learned − pixels: {100 * over_pixels.mean(0)[0]:+.1f} points with {sizes[0]} pictures, {100 * over_pixels.mean(0)[-1]:+.1f} with {sizes[-1]} "
        f"(better at {better.sum()} of {len(sizes)} sizes, n = {right.shape[1]} draws)",
        f"learned − untrained: {100 * over_random.mean(0)[0]:+.1f} and {100 * over_random.mean(0)[-1]:+.1f} points (better at {beyond.sum()} of {len(sizes)})",
        "holds" if better.all() and beyond.all() else "partly" if better.any() else "not here",
        finding,
    )  # fmt: skip


def _above(gain: np.ndarray) -> np.ndarray:
    """For each size, whether the mean gain is above twice its standard error."""
    return gain.mean(0) > 2 * _sd(gain) / np.sqrt(len(gain))


def _sd(values: np.ndarray) -> np.ndarray:
    return values.std(0, ddof=1)
