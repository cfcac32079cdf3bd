from __future__ import annotations

import numpy as np

from ..lenses.threshold import auc
from ..networks.catalogue import load_preset
from ..tracing import trace
from ..types import Check, Finding, Network, Verdict
from ..views import Bars, Grid

PROBES, STARTS = 300, 24


def loops(*, seed: int = 0) -> Verdict:
    """Is there a neuron in the second-to-last layer that any loop at the top sets off?

    Drawn probes, closed rings against rings with a gap, at random places near the top, with equal ink, go through the
    bundled 784-16-16-10. A neuron that knows loops tells them apart (area under the ROC curve). The best of 16 neurons
    is compared with the best of 16 of untrained nets: among any 16 there is a good one.
    """
    generator = np.random.default_rng(seed)
    closed, broken = rings(PROBES, 0.0, generator), rings(PROBES, 1.6, generator)
    network = load_preset("784-16-16-10")
    areas = _areas(network, closed, broken)
    null = np.array(
        [_areas(load_preset("784-16-16-10", trained=False, seed=s), closed, broken).max() for s in range(STARTS)]
    )
    best, line = float(areas.max()), float(np.quantile(null, 0.95))
    verdict = "holds" if best >= 0.9 and best > line else "partly" if best > line else "not here"
    ink = max(auc(np.concatenate([closed.sum((1, 2)), broken.sum((1, 2))]), _yes()), 0.5)
    finding = Finding(
        {"areas": areas, "untrained_best": null, "closed": closed[:4], "broken": broken[:4]},
        (
            Bars("how well each neuron tells a ring from a broken one", tuple(map(str, range(len(areas)))), areas,
                 int(areas.argmax()), "area under ROC, 0.5 is chance", 1.0),
            Grid("a closed ring", closed[0], "ink", 1.0),
            Grid("a broken one, equal ink", broken[0], "ink", 1.0),
        ),
        (
            Check("best of 16 neurons", best, line, (float(null.min()), float(null.max())), bool(best > line),
                  f"Null: 95th percentile of the best of 16 in {STARTS} untrained nets; the interval is their range."),
            Check("a clean loop detector", best, 0.9, None, bool(best >= 0.9), "0.9 is what one would call clean."),
            Check("ink alone", float(ink), 0.5, None, bool(ink < 0.52), "Probes of equal ink: the sum of the pixels must tell nothing."),
        ),
        f"Best neuron {int(areas.argmax())}: {best:.3f}; median neuron {np.median(areas):.3f}.",
    )  # fmt: skip
    return Verdict(
        "any generally loopy pattern towards the top sets off this neuron",
        "The Inner Workings of Neural Network |2| (2023)",
        "One of the 16 neurons tells closed from broken rings of equal ink with an area of at least 0.9, above the best of untrained nets.",
        f"best of 16 neurons {best:.3f}, median {np.median(areas):.3f} ({PROBES} + {PROBES} probes, one net)",
        f"best of 16 in {STARTS} untrained nets: {null.mean():.3f} on average, 95th percentile {line:.3f}",
        verdict,
        finding,
    )


def rings(count: int, gap: float, generator: np.random.Generator) -> np.ndarray:
    """Rings of 28 × 28 pixels near the top, `gap` radians of them left out, each with the same ink (45 full pixels)."""
    rows, columns = np.mgrid[:28, :28]
    pictures = []
    for _ in range(count):
        row, column = generator.uniform(8, 11), generator.uniform(11, 17)
        radius, start = generator.uniform(4, 5.5), generator.uniform(0, 2 * np.pi)
        distance = np.hypot(rows - row, columns - column)
        line = np.clip(2.2 - np.abs(distance - radius), 0, 1)
        if gap:
            angle = (np.arctan2(rows - row, columns - column) - start) % (2 * np.pi)
            line = line * (angle > gap)
        pictures.append(line * 45 / line.sum())
    return np.stack(pictures)


def _yes() -> np.ndarray:
    return np.arange(2 * PROBES) < PROBES


def _areas(network: Network, closed: np.ndarray, broken: np.ndarray) -> np.ndarray:
    values = trace(network, np.concatenate([closed, broken]), layers=["hidden2"])["hidden2"].numpy()
    found = np.array([auc(values[:, unit], _yes()) for unit in range(values.shape[1])])
    return np.maximum(found, 1 - found)
