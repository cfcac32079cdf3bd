from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..datasets import load
from ..lenses.threshold import auc
from ..networks.catalogue import load_preset
from ..progress import over
from ..tracing import trace
from ..training import train
from ..types import Check, Finding, Network, Verdict
from ..views import Grid, Lines, Table

STARTS = 5
# Chosen by the training loss.
TRAINING = {"optimizer": "adam", "lr": 0.02, "batch": 32, "epochs": 30, "schedule": "cosine"}


def patterns_of_patterns(*, seed: int = 0) -> Verdict:
    """Does a second hidden layer recognise patterns of the first one's patterns, and is a digit net better for it?

    The essay's 64-16-16-10 and 64-16-10, trained from the same five starts. Of each neuron of the second hidden layer
    is asked: how many first-layer patterns does it combine; how much of it is no sum over pixels (what a straight line
    from the 64 pixels cannot explain); how well does it tell its best digit from the rest, beside the first layer's
    neurons; and its receptive field through the first layer. The null is the same nets untrained.
    """
    train_part, test = load("digits").split(0.25, 0)
    seen: dict[str, list[np.ndarray]] = {}
    accuracy = np.zeros((2, STARTS))
    for run in over(range(STARTS), "start"):
        deep, flat = (load_preset(name, trained=False, seed=seed + run) for name in ("64-16-16-10", "64-16-10"))
        for name, value in _measured(deep, test.images, test.labels).items():
            seen.setdefault(f"{name}_untrained", []).append(value)
        for row, network in enumerate((deep, flat)):
            for step in train(network, train_part, test=test, seed=seed + run, **TRAINING):
                accuracy[row, run] = step.metrics["test_accuracy"]
        for name, value in _measured(deep, test.images, test.labels).items():
            seen.setdefault(name, []).append(value)
    return judged({**{name: np.stack(values) for name, values in seen.items()}, "accuracy": accuracy})


def judged(seen: Mapping[str, np.ndarray]) -> Verdict:
    """The verdict on what was measured (starts × units of the second layer; "accuracy" with and without it × starts)."""
    parts, bent, first, second = (seen[name] for name in ("parts", "bent", "first", "second"))
    combines = bool(parts.mean(1).min() > 2)
    # A sum of sums over pixels is a sum over pixels: a pattern of patterns must be something else, a tenth at least.
    composed = bool(bent.mean(1).min() > max(0.1, seen["bent_untrained"].mean(1).max()))
    gain = second.mean(1) - first.mean(1)
    untrained = seen["second_untrained"].mean(1) - seen["first_untrained"].mean(1)
    clearer = bool(gain.mean() > 2 * gain.std(ddof=1) / np.sqrt(len(gain)) and gain.mean() > untrained.mean())
    more = seen["accuracy"][0] - seen["accuracy"][1]
    better = bool(more.mean() > 2 * more.std(ddof=1) / np.sqrt(len(more)))
    best = int(second[0].argmax())
    used = np.argsort(-seen["share"][0, best])[:3]
    finding = Finding(
        dict(seen),
        (
            Grid(f"second layer, neuron {best}, seen through the first", seen["field"][0, best], "signed"),
            *(Grid(f"a pattern it combines: first layer, neuron {unit} ({100 * seen['share'][0, best, unit]:.0f} % of it)", seen["patterns"][0, unit], "signed") for unit in used),
            Lines("how well a neuron tells its best digit, sorted", np.arange(1, first.shape[1] + 1),
                  {"second layer": np.sort(second, 1)[:, ::-1].mean(0), "first layer": np.sort(first, 1)[:, ::-1].mean(0), "second, untrained": np.sort(seen["second_untrained"], 1)[:, ::-1].mean(0)}, "neuron, best first", "area under ROC"),
            Table(f"mean of {len(first)} starts", ("", "trained", "untrained"), (
                ("first-layer patterns combined", float(parts.mean()), float(seen["parts_untrained"].mean())),
                ("share that is no sum over pixels", float(bent.mean()), float(seen["bent_untrained"].mean())),
                ("area for its best digit, first layer", float(first.mean()), float(seen["first_untrained"].mean())),
                ("area for its best digit, second layer", float(second.mean()), float(seen["second_untrained"].mean())),
            )),
        ),
        (
            Check("first-layer patterns a neuron combines", float(parts.mean()), float(seen["parts_untrained"].mean()), (float(parts.min()), float(parts.max())), combines, "Effective number (the inverse of the sum of squared shares of its input's variance), mean and range; it fails when a start's mean is 2 or less."),
            Check("of it no sum over pixels", float(bent.mean()), float(seen["bent_untrained"].mean()), None, composed, "Share of its variance that a straight line from the pixels cannot explain; the null is the same nets untrained. It fails when a start's mean is not above it, or below a tenth."),
            Check("tells a digit better than the first layer does", float(second.mean()), float(first.mean()), None, clearer, f"Area under ROC for a neuron's best digit, mean of all neurons; gain {gain.mean():+.3f} ± {gain.std(ddof=1):.3f} over {len(gain)} starts (untrained {untrained.mean():+.3f})."),
            Check("accuracy gained by the second layer", float(more.mean()), 0.0, (float(more.min()), float(more.max())), better, "64-16-16-10 less 64-16-10, the same starts; it fails unless the mean is above twice its standard error."),
        ),
        f"A second-layer neuron combines {parts.mean():.1f} first-layer patterns; {100 * bent.mean():.0f} % of it is no sum over pixels. The second layer is worth {100 * more.mean():+.1f} points of accuracy.",
    )  # fmt: skip
    return Verdict(
        "Hidden layers are the way in which neural networks learn to recognize patterns of patterns (of patterns of patterns of patterns…)",
        "Behind the Eyeballs of AI (2020)",
        "Second-layer neurons combine several first-layer patterns into what no sum over pixels gives, tell digits better than the first layer, and the net is right more often for it.",
        f"{parts.mean():.1f} patterns combined, {100 * bent.mean():.0f} % no sum over pixels; area for a neuron's best digit {first.mean():.3f} → {second.mean():.3f}; "
        f"accuracy {100 * seen['accuracy'][1].mean():.1f} → {100 * seen['accuracy'][0].mean():.1f} % ({100 * more.mean():+.1f} ± {100 * more.std(ddof=1):.1f} points, n = {len(more)})",
        f"untrained: {seen['parts_untrained'].mean():.1f} patterns, {100 * seen['bent_untrained'].mean():.1f} % no sum over pixels; area {seen['first_untrained'].mean():.3f} → {seen['second_untrained'].mean():.3f}",
        "holds" if combines and composed and clearer and better else "partly" if combines and clearer else "not here",
        finding,
    )  # fmt: skip


def _measured(network: Network, images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    values = trace(network, images, layers=["hidden1", "hidden2.sum", "hidden2"])
    hidden, summed, out = (values[name].numpy().astype(np.float64) for name in ("hidden1", "hidden2.sum", "hidden2"))
    below, above = (
        network.module.get_parameter(f"{name}.sum.weight").detach().numpy() for name in ("hidden1", "hidden2")
    )
    variance = above**2 * hidden.var(0)
    share = variance / variance.sum(1, keepdims=True)
    # The receptive field: the mean slope of the second layer's sum by each pixel, which goes through the first layer.
    slope = (hidden * (1 - hidden)).mean(0)
    field = (above * slope) @ below
    pixels = np.column_stack([images.reshape(len(images), -1).astype(np.float64), np.ones(len(images))])
    left = summed - pixels @ np.linalg.lstsq(pixels, summed, rcond=None)[0]
    return {
        "parts": 1 / (share**2).sum(1), "bent": left.var(0) / summed.var(0), "share": share,
        "first": _areas(hidden, labels), "second": _areas(out, labels),
        "field": field.reshape(-1, 8, 8), "patterns": below.reshape(-1, 8, 8).astype(np.float64),
    }  # fmt: skip


def _areas(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """For each unit, how well it tells the digit that it tells best, on or off."""
    found = np.array([[auc(unit, labels == digit) for digit in range(10)] for unit in values.T])
    return np.maximum(found, 1 - found).max(1)
