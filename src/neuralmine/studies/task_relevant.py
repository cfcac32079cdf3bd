from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..types import Check, Finding, Verdict
from ..views import Lines, Table
from ._digit_cnn import ROWS, measured

STARTS = 5


def task_relevant(*, seed: int = 0) -> Verdict:
    """Does each layer of a digit net give up what the pixels look like, and keep what the task needs?

    The nets and pictures of the study increasingly_abstract. Two curves over the layers: how well a layer's
    likenesses match those of the pixels, and those of the classes; and a linear probe for the class. The null is the
    same nets before training: a random layer, too, forgets pixels, but then the class is lost with them.
    """
    return judged(measured(seed, STARTS))


def judged(seen: Mapping[str, np.ndarray]) -> Verdict:
    """The verdict on what was measured (starts × rows, pixels first)."""
    pixels, classes, reads = (seen[f"{name}_trained"].mean(0) for name in ("pixels", "class", "probe"))
    blank_pixels, blank_reads = seen["pixels_untrained"].mean(0), seen["probe_untrained"].mean(0)
    fading = bool((np.diff(pixels) < 0).all())
    best, last = int(reads[1:].argmax()) + 1, seen["probe_trained"][:, -1]
    gain = seen["probe_trained"][:, best] - seen["probe_trained"][:, 0]
    relevant = bool(gain.min() > 0 and last.min() > seen["probe_untrained"][:, -1].max())
    crossing = next((ROWS[i] for i in range(1, len(ROWS)) if classes[i] > pixels[i]), "")
    # The essay's word is that training does it: then an untrained net must not give up the pixels as readily.
    learned = bool(pixels[-1] < blank_pixels[-1])
    finding = Finding(
        dict(seen),
        (
            Lines("two curves: like the pixels, and like the classes", np.arange(len(ROWS)),
                  {"pixels, trained": pixels, "classes, trained": classes, "pixels, untrained": blank_pixels, "classes, untrained": seen["class_untrained"].mean(0)},
                  "layer (0 is the pixels)", "rank correlation", float(ROWS.index(crossing)) if crossing else None),
            Lines("the class, read by a linear probe", np.arange(len(ROWS)), {"trained": reads, "untrained": blank_reads}, "layer (0 is the pixels)", "right on unseen pictures"),
            Table(f"mean of {len(gain)} starts", ("layer", "like pixels", "untrained", "probe right", "untrained"),
                  tuple((name, *(float(v[i]) for v in (pixels, blank_pixels, reads, blank_reads))) for i, name in enumerate(ROWS))),
        ),
        (
            Check("pixels fade at every layer", float(np.diff(pixels).max()), 0.0, None, fading, "The largest step of the rank correlation with the pixels; below 0 when each layer gives some up."),
            Check("the class is read better than from the pixels", float(reads[best]), float(reads[0]), (float(seen["probe_trained"][:, best].min()), float(seen["probe_trained"][:, best].max())),
                  bool(gain.min() > 0), f"{ROWS[best]}; mean and range of {len(gain)} starts. It fails when any start reads no better than from the pixels."),
            Check("the class outlives the pixels only by training", float(last.mean()), float(blank_reads[-1]), (float(last.min()), float(last.max())), bool(last.min() > seen["probe_untrained"][:, -1].max()),
                  "A linear probe on the last layer; the null is the same nets untrained."),
            Check("training, not depth alone, gives up the pixels", float(pixels[-1]), float(blank_pixels[-1]), None, learned,
                  "Rank correlation of the last layer with the pixels; the null is the same nets untrained. It fails when they give up as much or more."),
        ),
        f"Like the pixels: {pixels[1]:.3f} in {ROWS[1]}, {pixels[-1]:.3f} at the end (untrained {blank_pixels[-1]:.3f}); the curves "
        + (f"cross at {crossing}." if crossing else "do not cross."),
    )  # fmt: skip
    return Verdict(
        "each layer transforms the representation from the previous layer, creating increasingly abstract and task-relevant features",
        "Mining for Meaning (2025)",
        "Layer by layer the pixels are given up and the class grows easier to read, until the class counts more than the pixels; untrained nets do not do it.",
        f"rank correlation with the pixels {' → '.join(f'{v:.3f}' for v in pixels)}, {'crossing the classes at ' + crossing if crossing else 'always above the classes'}; probe {100 * reads[0]:.1f} % on pixels, "
        f"{100 * reads[best]:.1f} % at {ROWS[best]}, {100 * reads[-1]:.1f} % at the end (n = {len(gain)})",
        f"untrained: pixels {blank_pixels[1]:.3f} → {blank_pixels[-1]:.3f}; probe {100 * blank_reads[best]:.1f} % at {ROWS[best]}, {100 * blank_reads[-1]:.1f} % at the end",
        "holds" if fading and relevant and learned and crossing else "partly" if relevant else "not here",
        finding,
    )  # fmt: skip
