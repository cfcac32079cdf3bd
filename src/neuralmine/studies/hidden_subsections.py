from __future__ import annotations

import numpy as np
from scipy.stats import binom

from ..datasets import load
from ..networks.catalogue import load_preset
from ..progress import over
from ..tracing import trace
from ..training import train
from ..types import Check, Finding, Network, Verdict
from ..views import Bars, Grid
from .edges import phases_shuffled

STARTS, NULLS = 5, 100
# Chosen by the training loss.
TRAINING = {"optimizer": "adam", "lr": 0.02, "batch": 32, "epochs": 30, "schedule": "cosine"}
ALIKE = 0.5  # a shape that explains less than half of a weight picture is not what one would see in it


def hidden_subsections(*, seed: int = 0) -> Verdict:
    """Do hidden neurons learn lines, curves and dashes, and do they often look like no part of a number?

    The essay's 64-16-10, trained from five random starts. Each hidden neuron's weight picture (8 × 8, its mean taken
    away) is compared with a bank of lines, arcs and dashes at every place; the best correlation counts. The null is
    the best of the same bank for the same picture with its phases shuffled. A neuron is unlike when its best shape
    explains less than half of its weights; it matters when holding it at its mean makes more digits wrong.
    """
    train_part, test = load("digits").split(0.25, 0)
    generator = np.random.default_rng(seed)
    bank = np.concatenate(list(strokes().values()))
    weights, drops, blanks, accuracy = [], [], [], []
    for run in over(range(STARTS), "start"):
        network = load_preset("64-16-10", trained=False, seed=seed + run)
        blanks.append(_pictures(network))
        for step in train(network, train_part, test=test, seed=seed + run, **TRAINING):
            accuracy.append(step.metrics["test_accuracy"])
        weights.append(_pictures(network))
        drops.append(_drops(network, test.images, test.labels))
    pictures = np.concatenate(weights)
    fits = np.abs(correlations(pictures, bank))
    null = np.stack(
        [np.abs(correlations(phases_shuffled(pictures, generator, 1.2), bank)).max(1) for _ in range(NULLS)]
    )
    untrained = np.abs(correlations(np.concatenate(blanks), bank)).max(1)
    return judged(pictures, fits, null, untrained, np.concatenate(drops), accuracy[-1])


def judged(
    pictures: np.ndarray, fits: np.ndarray, null: np.ndarray, untrained: np.ndarray, drops: np.ndarray, accuracy: float
) -> Verdict:
    """The verdict on weight pictures (units × 8 × 8), their fits (units × shapes), the best of each null, and the loss of accuracy without each unit."""
    best, count = fits.max(1), len(fits)
    above = best > np.quantile(null, 0.95, axis=0)
    chance = float(binom.sf(int(above.sum()) - 1, count, 0.05))
    unlike = best**2 < ALIKE
    matter = drops[unlike]
    matters = bool(len(matter) > 1 and matter.mean() > 2 * matter.std(ddof=1) / np.sqrt(len(matter)))
    shapes = np.repeat(list(strokes()), [len(one) for one in strokes().values()])[fits.argmax(1)]
    kinds = {kind: int((shapes == kind).sum()) for kind in strokes()}
    some, most = bool(chance < 0.05), bool(above.mean() >= 0.5)
    second = bool(unlike.mean() >= 0.5 and matters)
    order = np.argsort(-best)
    finding = Finding(
        {"match": best, "null": null, "untrained": untrained, "above": above.astype(np.int8), "unlike": unlike.astype(np.int8), "drop": drops},
        (
            Bars(f"best match with a line, an arc or a dash, mean of {count} neurons", ("trained", "phases shuffled", "untrained"), np.array([best.mean(), null.mean(), untrained.mean()]), 0, "correlation", 1.0),
            *(Grid(f"{name}: best match {shapes[unit]}, {best[unit]:.2f}", pictures[unit], "signed") for name, unit in (("most like a stroke", order[0]), ("the middle one", order[count // 2]), ("least", order[-1]))),
        ),
        (
            Check("neurons that match a stroke better than their null", float(above.sum()), 0.05 * count, None, some,
                  f"Of {count}, above the 95th percentile of themselves with shuffled phases; by chance so many or more come with probability {chance:.2g}."),
            Check("mean best match", float(best.mean()), float(null.mean()), (float(np.quantile(null.mean(1), 0.025)), float(np.quantile(null.mean(1), 0.975))), bool(best.mean() > np.quantile(null.mean(1), 0.95)), "Null: the same frequencies and regions with random phases, best of the same bank."),
            Check("share that looks like no stroke", float(unlike.mean()), float((null**2 < ALIKE).mean()), None, bool(unlike.mean() >= 0.5), "The best shape explains less than half of the weights; the null is the same for shuffled phases."),
            Check("accuracy lost without one such neuron", float(matter.mean()) if len(matter) else 0.0, 0.0, None, matters, "Held at its mean; it fails unless the mean over the unlike neurons is above twice its standard error."),
        ),
        f"{int(above.sum())} of {count} hidden neurons match a stroke better than chance (best fit: {', '.join(f'{kind} {n} times' for kind, n in kinds.items())}); {int(unlike.sum())} look like none.",
    )  # fmt: skip
    return Verdict(
        "the neurons in the hidden layer naturally learn to identify subsections of numbers! These small subsections can be things like lines, curves, and dashes … Often, the subsections … look nothing like part of a number to the human eye",
        "Behind the Eyeballs of AI (2020)",
        "Most hidden neurons match a line, an arc or a dash better than themselves with shuffled phases; and no such stroke explains half of what at least every second neuron looks for, though the net needs it.",
        f"strokes: {int(above.sum())} of {count} neurons above their null, mean match {best.mean():.3f}; unlike any stroke: {100 * unlike.mean():.0f} %, "
        f"each worth {100 * (matter.mean() if len(matter) else 0):.1f} points of accuracy (test {100 * accuracy:.1f} %)",
        f"{0.05 * count:.1f} neurons expected, mean match {null.mean():.3f} with shuffled phases, {untrained.mean():.3f} untrained",
        "holds" if some and most and second else "partly" if some or second else "not here",
        finding,
    )  # fmt: skip


def strokes() -> dict[str, np.ndarray]:
    """Lines, arcs and dashes drawn on 8 × 8 pixels at many places and directions, each of mean 0 and length 1."""
    rows, columns = np.mgrid[:8, :8].astype(np.float64)
    found: dict[str, list[np.ndarray]] = {"line": [], "arc": [], "dash": []}
    for angle in np.arange(8) * np.pi / 8:
        for row in np.arange(1, 7):
            for column in np.arange(1, 7):
                across = (columns - column) * np.sin(angle) - (rows - row) * np.cos(angle)
                along = (columns - column) * np.cos(angle) + (rows - row) * np.sin(angle)
                for kind, half in (("line", 8.0), ("dash", 1.5)):
                    beyond = np.maximum(np.abs(along) - half, 0)
                    found[kind].append(np.exp(-(across**2 + beyond**2) / (2 * 0.7**2)))
    for row in np.arange(1.5, 6, 1):
        for column in np.arange(1.5, 6, 1):
            for radius in (1.5, 2.5, 3.5):
                distance, turn = np.hypot(rows - row, columns - column), np.arctan2(rows - row, columns - column)
                for start in np.arange(8) * np.pi / 4:
                    beyond = np.maximum(np.abs((turn - start + np.pi) % (2 * np.pi) - np.pi) - np.pi / 2, 0) * distance
                    found["arc"].append(np.exp(-((distance - radius) ** 2 + beyond**2) / (2 * 0.7**2)))
    return {kind: _centred(np.stack(shapes)).reshape(-1, 8, 8) for kind, shapes in found.items()}


def correlations(pictures: np.ndarray, bank: np.ndarray) -> np.ndarray:
    """Pearson's correlation of every picture with every shape."""
    return _centred(pictures) @ _centred(bank).T


def _centred(pictures: np.ndarray) -> np.ndarray:
    rows = pictures.reshape(len(pictures), -1)
    rows = rows - rows.mean(1, keepdims=True)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _pictures(network: Network) -> np.ndarray:
    return network.module.get_parameter("hidden1.sum.weight").detach().numpy().reshape(-1, 8, 8).astype(np.float64)


def _drops(network: Network, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How much accuracy is lost when each hidden neuron is held at its mean."""
    hidden = trace(network, images, layers=["hidden1"])["hidden1"].numpy().astype(np.float64)
    weight, bias = (network.module.get_parameter(f"output.sum.{name}").detach().numpy() for name in ("weight", "bias"))
    right = [((held @ weight.T + bias).argmax(1) == labels).mean() for held in [hidden, *_held(hidden)]]
    return right[0] - np.array(right[1:])


def _held(hidden: np.ndarray) -> list[np.ndarray]:
    units = np.arange(hidden.shape[1])
    return [np.where(units == unit, hidden.mean(0), hidden) for unit in units]
