from __future__ import annotations

import numpy as np

from ..datasets import load
from ..networks.catalogue import load_preset
from ..progress import over
from ..tracing import trace
from ..training import train
from ..types import Check, Finding, Network, Verdict
from ..views import Bars

RUNS = 10


def smartass(*, seed: int = 0) -> Verdict:
    """Trained on one single image of a 1, does a network call everything a 1?

    The 64-10 net, from ten random starts, trained by gradient descent on one "1" each until that image's loss is small;
    then asked about all 1,797 digits. The null is the same nets before training.
    """
    data = load("digits")
    generator = np.random.default_rng(seed)
    ones = generator.choice(np.flatnonzero(data.labels == 1), RUNS, replace=False)
    shares, before, losses = [], [], []
    called = np.zeros(10)
    for run, index in over(list(enumerate(ones)), "run"):
        network = load_preset("64-10", trained=False, seed=seed + run)
        before.append(float((_said(network, data.images) == 1).mean()))
        for step in train(network, data.take([index]), optimizer="gradient_descent", lr=2.0, epochs=300, seed=seed):
            losses_now = step.metrics["loss"]
        said = _said(network, data.images)
        called += np.bincount(said, minlength=10) / RUNS
        shares.append(float((said == 1).mean()))
        losses.append(losses_now)
    share, null = np.array(shares), np.array(before)
    finding = Finding(
        {"share": share, "before": null, "loss": np.array(losses), "called": called},
        (Bars("what all 1,797 digits are called, mean of ten runs", data.classes, called, 1, "images", float(len(data))),),
        (
            Check("share of all images called a 1", float(share.mean()), float(null.mean()), (float(share.min()), float(share.max())),
                  bool(share.mean() >= 0.95), f"Mean of {RUNS} runs and their range; the null is the same nets before training."),
            Check("loss on the one image", float(np.mean(losses)), None, None, bool(np.mean(losses) < 0.01), "It has learned that one."),
        ),
        f"{100 * share.mean():.1f} % of all digits are called a 1.",
    )  # fmt: skip
    return Verdict(
        "The best way for it to minimize its loss function would be to simply classify every single image as a 1, no matter what. What a smartass.",
        "Behind the Eyeballs of AI (2020)",
        "After training on one 1 alone, at least 95 % of all images are called a 1.",
        f"{100 * share.mean():.1f} ± {100 * share.std(ddof=1):.1f} % called a 1 (n = {RUNS})",
        f"{100 * null.mean():.1f} % before training",
        "holds" if share.mean() >= 0.95 else "partly" if share.mean() > null.max() else "not here",
        finding,
    )


def _said(network: Network, images: np.ndarray) -> np.ndarray:
    return trace(network, images).output.argmax(1).numpy()
