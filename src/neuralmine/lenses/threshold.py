from __future__ import annotations

from typing import Annotated

import numpy as np

from ..errors import UsageError
from ..lens import lens
from ..tracing import trace
from ..types import Between, Check, Dataset, Finding, Network, Unit
from ..views import Lines


@lens()
def threshold(
    network: Network,
    data: Dataset,
    *,
    unit: Unit = 0,
    positive: int = 1,
    at: Annotated[float, Between(0, 1)] = 0.5,
    splits: Annotated[int, Between(2, 500)] = 20,
    shuffles: Annotated[int, Between(10, 2000)] = 200,
    seed: int = 0,
) -> Finding:
    """Where to draw the line: one output's accuracy at every threshold, its ROC curve, and how well a fitted line holds.

    Numbers: "scores" and "is_positive" (one for each image), "thresholds" with "accuracy", "true_positive" and
    "false_positive" at each (said positive when the score is above it), "auc", "accuracy_at" (at the threshold
    `at`), "fitted" (splits × 2: threshold fitted on one half, accuracy on the other), "best".

    Options:
        unit: which output.
        positive: the class it should be high for, by index; all others are negative.
        at: the threshold that is asked about.
        splits: how many random halves the fitted threshold is tried on.
        shuffles: how many shuffles of the labels make the null of the area under the curve.
        seed: of halves and shuffles.

    Raises UsageError for an output or class that does not exist.

    >>> import neuralmine as nm
    >>> data = nm.datasets.load("digits").only(("0", "1"))
    >>> round(float(nm.look("threshold", nm.load("64-1"), data).numbers["auc"]), 3)
    0.966
    """
    output = trace(network, data.images).output
    if not 0 <= unit < output.shape[1]:
        raise UsageError(f"There are outputs 0 to {output.shape[1] - 1}, not {unit}.", "Choose one of those.")
    if not 0 <= positive < len(data.classes):
        raise UsageError(f"There are classes 0 to {len(data.classes) - 1}, not {positive}.", "Choose one of those.")
    scores = output[:, unit].detach().cpu().double().numpy()
    yes = np.asarray(data.labels) == positive
    if yes.all() or not yes.any():
        raise UsageError("All images are of one kind, so there is nothing to tell apart.", "Choose another class.")
    lines = np.concatenate([[scores.min() - 1e-12], np.unique(scores)])
    above = scores[None, :] > lines[:, None]
    hits, false = (above & yes).sum(1) / yes.sum(), (above & ~yes).sum(1) / (~yes).sum()
    accuracy = (above == yes).mean(1)
    area = auc(scores, yes)
    generator = np.random.default_rng(seed)
    fitted = np.array([_fitted(scores, yes, generator.permutation(len(yes))) for _ in range(splits)])
    null = np.array([auc(scores, generator.permutation(yes)) for _ in range(shuffles)])
    here = float(((scores > at) == yes).mean())
    best = int(accuracy.argmax())
    mean, sd = float(fitted[:, 1].mean()), float(fitted[:, 1].std(ddof=1))
    return Finding(
        {
            "scores": scores,
            "is_positive": yes.astype(np.int8),
            "thresholds": lines,
            "accuracy": accuracy,
            "true_positive": hits,
            "false_positive": false,
            "auc": np.array(area),
            "accuracy_at": np.array(here),
            "fitted": fitted,
            "best": np.array([lines[best], accuracy[best]]),
        },
        (
            Lines("accuracy by threshold", lines, {"accuracy": accuracy}, "threshold", "accuracy", at),
            Lines("ROC", false[::-1], {"this output": hits[::-1], "chance": false[::-1]}, "false alarms", "hits"),
        ),
        (
            Check(
                "area under the ROC curve",
                area,
                float(np.quantile(null, 0.95)),
                None,
                bool(area > np.quantile(null, 0.95)),
                f"How often a {data.classes[positive]} scores above another image; null: 95th percentile of {shuffles} shuffles.",
            ),
            Check(
                "a fitted threshold holds on images it was not fitted on",
                mean,
                here,
                (mean - 1.96 * sd, mean + 1.96 * sd),
                None,
                f"Mean accuracy over {splits} random halves (± 1.96 sd); beside it the accuracy at {at:g}.",
            ),
        ),
        summary=(
            f"At {at:.3g}: {100 * here:.1f} % right. Fitted on one half, tested on the other: {100 * mean:.1f} ± {100 * sd:.1f} % "
            f"({splits} splits). Area under the ROC curve {area:.4f}."
        ),
    )


def auc(scores: np.ndarray, yes: np.ndarray) -> float:
    """The share of pairs (positive, negative) in which the positive scores higher; ties count half.

    >>> auc(np.array([0.1, 0.4, 0.4, 0.9]), np.array([False, False, True, True]))
    0.875
    """
    from scipy.stats import rankdata

    ranks = rankdata(scores)
    count = int(yes.sum())
    return float((ranks[yes].sum() - count * (count + 1) / 2) / (count * (len(yes) - count)))


def _fitted(scores: np.ndarray, yes: np.ndarray, order: np.ndarray) -> tuple[float, float]:
    """A threshold midway between two scores, chosen on the first half; its accuracy on the second."""
    half = order[: len(order) // 2], order[len(order) // 2 :]
    known = np.unique(scores[half[0]])
    lines = np.concatenate([[known[0] - 1e-9], (known[1:] + known[:-1]) / 2, [known[-1] + 1e-9]])
    accuracy = ((scores[half[0]][None] > lines[:, None]) == yes[half[0]]).mean(1)
    line = float(lines[accuracy.argmax()])
    return line, float(((scores[half[1]] > line) == yes[half[1]]).mean())
