from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..types import Check, Finding, Verdict
from ..views import Lines, Table
from ._digit_cnn import ROWS, measured

STARTS = 5


def increasingly_abstract(*, seed: int = 0) -> Verdict:
    """Do the layers of a digit net find pictures of one class more and more alike, the deeper they are?

    A small convolutional net is trained on the 8 × 8 digits from five random starts. For 300 pictures it has not
    seen, the dissimilarities of all pairs in a layer are compared (Spearman) with those of a code that knows the
    class alone: the measure of abstraction that the cited studies use. The null is the same nets before training.
    """
    return judged(measured(seed, STARTS))


def judged(seen: Mapping[str, np.ndarray]) -> Verdict:
    """The verdict on what was measured (starts × rows, pixels first)."""
    trained, blank, reads = seen["class_trained"], seen["class_untrained"], seen["probe_trained"]
    means, null = trained.mean(0), blank.mean(0)
    steps = np.diff(means)
    best = int(means[1:].argmax()) + 1
    # Deeper than the pixels in every start, and than the best layer of any untrained net.
    rises = bool(trained[:, best].min() > trained[0, 0] and trained[:, best].min() > blank[:, 1:].max())
    always = bool((steps > 0).all())
    falls = [ROWS[i + 1] for i in np.flatnonzero(steps <= 0)]
    path = " → ".join(f"{value:.3f}" for value in means)
    finding = Finding(
        {"trained": trained, "untrained": blank, "probe": reads},
        (
            Lines("how well each layer's likenesses match the classes", np.arange(len(ROWS)),
                  {"trained": means, "untrained": null}, "layer (0 is the pixels)", "rank correlation"),
            Table(f"mean of {len(trained)} starts", ("layer", "trained", "± sd", "untrained", "linear probe, trained", "linear probe, untrained"),
                  tuple((name, *(float(v[i]) for v in (means, trained.std(0, ddof=1), null, reads.mean(0), seen["probe_untrained"].mean(0)))) for i, name in enumerate(ROWS))),
        ),
        (
            Check("the best layer matches the classes better than pixels do", float(means[best]), float(means[0]), (float(trained[:, best].min()), float(trained[:, best].max())),
                  rises, f"{ROWS[best]}; mean of {len(trained)} starts and their range. It fails unless every start beats the pixels and every untrained layer."),
            Check("smallest step from one layer to the next", float(steps.min()), 0.0, None, always, "Above 0 when every layer is more abstract than the one before it."),
            Check("the same nets untrained, last layer", float(null[-1]), float(null[0]), None, None, "What the architecture does by itself."),
        ),
        f"Rank correlation with the classes: {path} (pixels, then layer by layer); untrained it ends at {null[-1]:.3f}.",
    )  # fmt: skip
    return Verdict(
        "progressive refinement of information—transforming low-level input features into increasingly abstract representations as data flows through",
        "Mining for Meaning (2025)",
        "Layer after layer, pictures of one class grow more alike than others; each step goes up, and untrained nets do not do it.",
        f"rank correlation with the classes {path}, pixels to logits (± {trained.std(0, ddof=1)[best]:.3f} at {ROWS[best]}, n = {len(trained)} nets)"
        + (f"; it falls back at the {' and '.join(falls)}" if falls else ""),
        f"untrained: {' → '.join(f'{value:.3f}' for value in null)}",
        "holds" if rises and always else "partly" if rises else "not here",
        finding,
    )
