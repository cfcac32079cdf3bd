from __future__ import annotations

from functools import cache

import numpy as np

from ..codes import probe
from ..progress import over
from ..types import Check, Dataset, Finding, Network, Verdict
from ..views import Lines, Table
from ._digit_cnn import codes, parts, taught, untrained

EACH = (2, 5, 10, 20, 40)  # pictures of each new digit
STARTS, UPDATES = 5, 120
NAMES = ("transferred", "from scratch", "random features", "pixels")
OLD, NEW = tuple("01234"), tuple("56789")
LAYER = "maps2"


def adapts_to_tasks(*, seed: int = 0) -> Verdict:
    """Does what a net learned on the digits 0 to 4 help it with 5 to 9, of which it has seen few?

    A small convolutional net learns 0 to 4. Then, with 2 to 40 pictures of each of 5 to 9: a linear classifier on its
    second layer of maps (transferred); the whole net trained anew on those pictures (from scratch); the same linear
    classifier on that layer of an untrained net (random features); and on the pixels. Five random starts and draws.
    """
    train_part, test = parts()
    new, asked = train_part.only(NEW), test.only(NEW)
    right = np.zeros((len(NAMES), STARTS, len(EACH)))
    for run in over(range(STARTS), "start"):
        generator = np.random.default_rng([seed, run])
        order = [generator.permutation(np.flatnonzero(new.labels == label)) for label in range(len(NEW))]
        knows, blank = _knows_old(seed + run), untrained(seed + run)
        for column, each in over(list(enumerate(EACH)), "size"):
            few = new.take(np.concatenate([one[:each] for one in order]))
            scratch = taught(few, seed + run, max(1, round(UPDATES * 32 / max(len(few), 32))))
            said = (
                _linear(knows, few, asked),
                codes(scratch, asked.images, ("logits",))["logits"].argmax(1),
                _linear(blank, few, asked),
                probe(few.images.reshape(len(few), -1), few.labels, asked.images.reshape(len(asked), -1)),
            )
            right[:, run, column] = [(one == asked.labels).mean() for one in said]
    return judged(right, EACH)


def judged(right: np.ndarray, sizes: tuple[int, ...]) -> Verdict:
    """The verdict on how often each way was right: ways × starts × pictures of each new digit."""
    means = right.mean(1)
    small = np.array(sizes) <= 10  # few pictures of each
    gains = [right[0] - other for other in right[1:]]
    pooled = [gain[:, small].mean(1) for gain in gains]  # a number a start
    scratch, random, pixels = (bool(one.mean() > 2 * one.std(ddof=1) / np.sqrt(len(one))) for one in pooled)
    finding = Finding(
        {"right": right, "each": np.array(sizes)},
        (
            Lines("telling 5, 6, 7, 8 and 9 apart", np.array(sizes), dict(zip(NAMES, means, strict=True)), "pictures of each new digit", "right on unseen pictures"),
            Table(f"mean of {right.shape[1]} starts", ("of each", *NAMES, "transferred − scratch", "± sd", "transferred − random", "± sd"),
                  tuple((each, *(float(v) for v in means[:, i]), *(float(f(g[:, i])) for g in gains[:2] for f in (np.mean, lambda v: v.std(ddof=1)))) for i, each in enumerate(sizes))),
        ),
        (
            *(
                Check(f"transferred beats {name}", float(means[0, small].mean()), float(means[row, small].mean()), None, passed,
                      f"Mean over at most 10 pictures of each; gain {100 * pooled[row - 1].mean():+.1f} ± {100 * pooled[row - 1].std(ddof=1):.1f} points over {right.shape[1]} starts. It fails unless that is above twice its standard error.")
                for row, (name, passed) in enumerate(zip(NAMES[1:], (scratch, random, pixels), strict=True), 1)
            ),
            Check(f"and with {sizes[-1]} of each", float(means[0, -1]), float(means[1, -1]), None, None, "Transferred; beside it from scratch."),
        ),
        f"With {sizes[1]} pictures of each: transferred {100 * means[0, 1]:.1f} %, scratch {100 * means[1, 1]:.1f} %, random features {100 * means[2, 1]:.1f} %, pixels {100 * means[3, 1]:.1f} %.",
    )  # fmt: skip
    return Verdict(
        "Deep learning succeeds because it can: adapt to many tasks",
        "Thread 3 — Deep Learning: How Neural Networks Actually Think (2025)",
        "With few pictures of new digits, features learned on other digits beat a net trained from scratch, and random features.",
        f"with at most 10 of each new digit: {100 * pooled[0].mean():+.1f} ± {100 * pooled[0].std(ddof=1):.1f} points over training from scratch, {100 * pooled[1].mean():+.1f} ± {100 * pooled[1].std(ddof=1):.1f} over random features (n = {right.shape[1]})",
        f"with {sizes[1]} of each: transferred {100 * means[0, 1]:.1f} %, scratch {100 * means[1, 1]:.1f} %, random features {100 * means[2, 1]:.1f} %, pixels {100 * means[3, 1]:.1f} %",
        "holds" if scratch and random else "partly" if scratch or random else "not here",
        finding,
    )


@cache
def _knows_old(seed: int) -> Network:
    return taught(parts()[0].only(OLD), seed, 8)


def _linear(network: Network, few: Dataset, asked: Dataset) -> np.ndarray:
    return probe(codes(network, few.images, (LAYER,))[LAYER], few.labels, codes(network, asked.images, (LAYER,))[LAYER])
