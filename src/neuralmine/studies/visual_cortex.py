from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.stats import fisher_exact

from ..lens import look
from ..networks import load
from ..progress import over
from ..tracing import trace
from ..types import Check, Finding, Network, Verdict
from ..views import Lines, Table

NETS = ("squeezenet", "lite0")
LAYERS = ("features.1", "features.3", "features.4")  # of SqueezeNet: the first layer's output and two blocks after it
ANGLES, FREQUENCIES, PHASES = np.arange(12) * 15.0, np.geomspace(0.02, 0.4, 9), np.arange(4) * np.pi / 2
NULL_FILTERS, BATCH = 200, 24
# Of cells in macaque V1, from the papers' abstracts. Full widths at half of the largest response.
MEDIAN_DEGREES = 40.0  # De Valois, Yund and Hepler (1982): 6 to 360 (untuned), "median near 40 degrees"
OCTAVES = (0.8, 3.0)  # Foster, Gaska, Nagler and Pollen (1985): the range; mean 1.8, in the fovea 1.4


def visual_cortex(*, seed: int = 0) -> Verdict:
    """Are the early layers of a picture net like cells in the visual cortex?

    What can be asked without a brain at hand. The first filters of SqueezeNet and EfficientNet-Lite0: how many does a
    Gabor function, the usual description of a cell in V1, fit better than random filters (lens filters)? And
    SqueezeNet's first layers are shown gratings as cells are: 12 directions × 9 frequencies × 4 phases. How broadly is
    the unit in the middle of each map tuned, beside published tuning of cells in macaque V1? The null is the same net
    untrained. Ringach's (2002) measure of a field's width in cycles cannot be compared: these filters are 3 × 3 pixels.
    Whether later layers follow later areas needs recordings of a brain, and none come along: see lens rsa_against.
    """
    nets = {kind: load("squeezenet", trained=kind == "trained", seed=seed) for kind in ("trained", "untrained")}
    striped = np.zeros((len(NETS), 4))
    for row, name in over(list(enumerate(NETS)), "net", until=0.3):
        for column, trained in enumerate((True, False)):
            seen = look("filters", load(name, trained=trained, seed=seed), shuffles=NULL_FILTERS, seed=seed)
            check = seen.checks[0]
            striped[row, column], striped[row, 2], striped[row, 3] = check.measured, check.null or 0, len(seen.numbers["r2"])  # fmt: skip
    found: dict[str, np.ndarray] = {"striped": striped}
    for kind, network in over(list(nets.items()), "network"):
        responses = grating_responses(network)
        found |= {f"{name}_{kind}": value for name, value in tuned(responses).items()}
    return judged(found)


def judged(found: Mapping[str, np.ndarray]) -> Verdict:
    """The verdict on striped filters (nets × trained, untrained, by luck, all) and on the tuning of units by layer."""
    striped, count = found["striped"], found["striped"][:, 3]
    more = (striped[:, 0] > striped[:, 1]) & (striped[:, 0] > striped[:, 2])
    degrees, blank = found["degrees_trained"], found["degrees_untrained"]  # layers × units, nan for no response
    narrow, narrow_blank = (_share(one <= 90, one) for one in (degrees, blank))
    p = [_more_often(a, b) for a, b in zip(degrees, blank, strict=True)]
    sharper = np.array(p) < 0.01 / len(p)
    octaves, octaves_blank = (_share((one >= OCTAVES[0]) & (one <= OCTAVES[1]), degree) for one, degree in ((found["octaves_trained"], degrees), (found["octaves_untrained"], blank)))  # fmt: skip
    medians, medians_blank = np.nanmedian(degrees, 1), np.nanmedian(blank, 1)
    best = int(narrow.argmax())
    nets = [f"{name} {striped[i, 0]:.0f} of {count[i]:.0f} filters" for i, name in enumerate(NETS)]
    finding = Finding(
        dict(found),
        (
            Table("tuning to gratings, layer by layer (SqueezeNet)", ("layer", "median width °", "untrained", "narrower than 90°", "untrained", "in V1's range of octaves", "untrained"),
                  tuple((name, *(float(v[i]) for v in (medians, medians_blank, narrow, narrow_blank, octaves, octaves_blank))) for i, name in enumerate(LAYERS))),
            Table("first filters that a Gabor function fits", ("network", "filters", "striped", "untrained", "random, at most"),
                  tuple((name, int(count[i]), *(int(v) for v in striped[i, :3])) for i, name in enumerate(NETS))),
            *((Lines("the eight sharpest units by direction", ANGLES, {f"{LAYERS[int(layer)]}, map {int(unit)}": curve for (layer, unit), curve in zip(found["sharpest_trained"], found["curves_trained"], strict=True)}, "stripes at °", "share of the largest response"),)
              if "curves_trained" in found else ()),
        ),
        (
            *(
                Check(f"striped filters, {name}", float(striped[i, 0]), float(max(striped[i, 1:3])), None, bool(more[i]),
                      f"Of {count[i]:.0f} filters of 3 × 3, how many a Gabor function fits better than 95 % of random filters; beside it the more of untrained ({striped[i, 1]:.0f}) and by luck ({striped[i, 2]:.0f}). Filters this small are fitted well by chance.")
                for i, name in enumerate(NETS)
            ),
            *(
                Check(f"units tuned to a direction, {name}", float(narrow[i]), float(narrow_blank[i]), None, bool(sharper[i]),
                      f"Share of responding units with a width below 90°; the null is the untrained net. Fisher's exact test: p = {p[i]:.2g}, below {0.01 / len(p):.2g} is asked for.")
                for i, name in enumerate(LAYERS)
            ),
            Check("median width of tuning, degrees", float(medians[best]), float(medians_blank[best]), None, None,
                  f"{LAYERS[best]}, beside untrained. Cells of macaque V1: median near {MEDIAN_DEGREES:.0f}°, from 6° to untuned (De Valois, Yund and Hepler 1982)."),
            Check("units as narrow in frequency as cells", float(octaves[best]), float(octaves_blank[best]), None, None,
                  f"{LAYERS[best]}: share with {OCTAVES[0]:g} to {OCTAVES[1]:g} octaves, the range in macaque V1 (Foster and others 1985, mean 1.8, in the fovea 1.4), beside untrained."),
        ),
        f"{LAYERS[best]}: {100 * narrow[best]:.0f} % of units are tuned to a direction (untrained {100 * narrow_blank[best]:.0f} %), median width {medians[best]:.0f}° (untrained {medians_blank[best]:.0f}°, macaque V1 near {MEDIAN_DEGREES:.0f}°). "
        "No brain recordings come along: the order of areas is not tested here. With recordings of your own, lens rsa_against compares them.",
    )  # fmt: skip
    return Verdict(
        "This mirrors the structure of the human visual cortex.",
        "Thread 3 — Deep Learning: How Neural Networks Actually Think (2025)",
        "Early filters are Gabor functions beyond chance, units are tuned to direction and frequency as cells of V1 are, untrained ones less so; and later layers agree with later areas (needs recordings: not tested here).",
        f"striped beyond chance: {' and '.join(nets)}; units tuned to a direction, by layer: {_listed(narrow)} %, median widths {_listed(medians / 100)}° (macaque V1 near {MEDIAN_DEGREES:.0f}°); in V1's range of octaves: {_listed(octaves)} %. The later areas: no brain data here",
        f"untrained: {' and '.join(f'{row[1]:.0f}' for row in striped)} filters (by luck {' and '.join(f'{row[2]:.0f}' for row in striped)}); tuned {_listed(narrow_blank)} %, median widths {_listed(medians_blank / 100)}°; in the range of octaves {_listed(octaves_blank)} %",
        "partly" if more.any() and sharper.any() else "not here",
        finding,
    )  # fmt: skip


def gratings(size: int, phase: float) -> np.ndarray:
    """Grey gratings of full contrast, directions × frequencies × rows × columns; the stripes stand at each angle."""
    y, x = np.mgrid[:size, :size] - size // 2
    across = np.radians(ANGLES)[:, None, None, None] + np.pi / 2  # a wave runs across its stripes; y goes up
    along = x * np.cos(across) - y * np.sin(across)
    return 0.5 + 0.5 * np.cos(2 * np.pi * FREQUENCIES[:, None, None] * along + phase)


def grating_responses(network: Network) -> list[np.ndarray]:
    """For each layer what the unit in the middle of each map answers beyond its answer to grey, a mean over phases.

    Units × directions × frequencies; an answer below that to grey counts as none, as a cell cannot fire less than never.
    """
    size = network.shape[-1]
    grey = _middles(network, np.full((1, 3, size, size), 0.5))
    total = [np.zeros((len(ANGLES) * len(FREQUENCIES), one.shape[1])) for one in grey]
    for phase in over(PHASES, "phase"):
        pictures = gratings(size, float(phase)).reshape(-1, 1, size, size)
        for start in over(range(0, len(pictures), BATCH), "batch"):
            shown = np.repeat(pictures[start : start + BATCH], 3, 1)
            for sums, now, rest in zip(total, _middles(network, shown), grey, strict=True):
                sums[start : start + BATCH] += np.maximum(now - rest, 0) / len(PHASES)
    return [sums.T.reshape(-1, len(ANGLES), len(FREQUENCIES)) for sums in total]


def tuned(responses: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Each unit's width in degrees (360: untuned) and octaves at its best grating (nan: no answer, or no two ends)."""
    most = max(len(one) for one in responses)
    degrees, octaves = np.full((2, len(responses), most), np.nan)
    curves = []
    for layer, units in enumerate(responses):
        for unit, answers in enumerate(units):
            if answers.max() <= 0:
                continue
            angle, frequency = np.unravel_index(answers.argmax(), answers.shape)
            by_angle, by_frequency = answers[:, frequency] / answers.max(), answers[angle] / answers.max()
            wide = width(
                np.roll(np.tile(by_angle, 2), -int(angle) + len(ANGLES) // 2)[: len(ANGLES) + 1], len(ANGLES) // 2
            )
            degrees[layer, unit] = 360 if np.isnan(wide) else wide * (ANGLES[1] - ANGLES[0])
            octaves[layer, unit] = width(by_frequency, int(frequency)) * np.log2(FREQUENCIES[1] / FREQUENCIES[0])
            curves.append((degrees[layer, unit], layer, unit, by_angle))
    sharpest = sorted(curves, key=lambda one: one[:3])[:8]
    return {
        "degrees": degrees,
        "octaves": octaves,
        "sharpest": np.array([one[1:3] for one in sharpest], dtype=np.int64).reshape(-1, 2),
        "curves": np.array([one[3] for one in sharpest]),
    }


def width(curve: np.ndarray, peak: int) -> float:
    """How many steps apart the curve passes half of its peak on either side, straight lines between the points; or nan.

    >>> width(np.array([0.0, 0.5, 1.0, 0.75, 0.25]), 2)
    2.5
    """
    half = curve[peak] / 2
    ends = []
    for side in (curve[peak::-1], curve[peak:]):
        below = np.flatnonzero(side <= half)
        if not len(below):
            return float("nan")
        i = int(below[0])
        ends.append(i - 1 + (side[i - 1] - half) / (side[i - 1] - side[i]))
    return float(sum(ends))


def _middles(network: Network, pictures: np.ndarray) -> list[np.ndarray]:
    seen = trace(network, pictures, layers=list(LAYERS))
    values = [seen[name].value.detach().double().numpy() for name in LAYERS]
    return [value[:, :, value.shape[2] // 2, value.shape[3] // 2] for value in values]


def _listed(shares: np.ndarray) -> str:
    return ", ".join(f"{100 * share:.0f}" for share in shares)


def _share(of: np.ndarray, among: np.ndarray) -> np.ndarray:
    """By layer the share of the units that respond at all."""
    return of.sum(1) / np.maximum(np.isfinite(among).sum(1), 1)


def _more_often(degrees: np.ndarray, blank: np.ndarray) -> float:
    """p of Fisher's exact test that units narrower than 90° are no more frequent than in the untrained layer."""
    table = [[int((one <= 90).sum()), int((one > 90).sum())] for one in (degrees, blank)]
    tested: Any = fisher_exact(table, alternative="greater")
    return float(tested.pvalue)
