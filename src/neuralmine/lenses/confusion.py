from __future__ import annotations

import numpy as np

from ..intervals import wilson
from ..lens import lens
from ..losses import chosen
from ..tracing import trace
from ..types import Check, Dataset, Finding, Network
from ..views import Grid, Table


@lens()
def confusion(network: Network, data: Dataset, *, seed: int = 0, shuffles: int = 200) -> Finding:
    """Which classes the network takes for which, its accuracy, and the images it gets wrong.

    Numbers: "counts" (true class × class said), "accuracy", "interval" (95 %, Wilson), "said", "wrong" (indices of
    the wrong images, the surest mistakes first), "recall" (one for each class). The null shuffles the labels.

    Options:
        seed: of the shuffling.
        shuffles: how many times the labels are shuffled for the null.

    Raises DataError when the data do not fit the network.

    >>> import neuralmine as nm
    >>> finding = nm.look("confusion", nm.load("digits"), nm.datasets.load("digits"))
    >>> int(finding.numbers["counts"].sum())
    1797
    """
    output = trace(network, data.images).output.detach()
    said, labels = chosen(output).cpu().numpy(), np.asarray(data.labels)
    scores = np.stack([prediction.scores for prediction in network.decode(output)])
    classes = max(len(data.classes), scores.shape[1])
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (labels, said), 1)
    right = said == labels
    accuracy = float(right.mean())
    wrong = np.flatnonzero(~right)
    sure = scores[wrong, said[wrong]] - scores[wrong, labels[wrong]]
    wrong = wrong[np.argsort(-sure, kind="stable")]
    generator = np.random.default_rng(seed)
    null = np.array([(said == generator.permutation(labels)).mean() for _ in range(shuffles)])
    names = tuple(data.classes) + tuple(str(i) for i in range(len(data.classes), classes))
    recall = counts.diagonal() / np.maximum(counts.sum(1), 1)
    low, high = wilson(int(right.sum()), len(labels))
    return Finding(
        {
            "counts": counts,
            "accuracy": np.array(accuracy),
            "interval": np.array([low, high]),
            "said": said,
            "wrong": wrong,
            "recall": recall,
        },
        (
            Grid("true class (rows) × class said (columns)", counts.astype(float), "magnitude", None, names, names),
            Table(
                "wrong images, the surest mistakes first",
                ("image", "is", "network says"),
                tuple((int(i), names[labels[i]], names[said[i]]) for i in wrong[:24]),
            ),
        ),
        (
            Check(
                "better than shuffled labels",
                accuracy,
                float(np.quantile(null, 0.95)) if shuffles else None,
                (low, high),
                bool(accuracy > np.quantile(null, 0.95)) if shuffles else None,
                f"Accuracy against the 95th percentile of {shuffles} shuffles of the labels.",
            ),
        ),
        summary=f"{int(right.sum())} of {len(labels)} right: {100 * accuracy:.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f} %). {data.note}",
    )
