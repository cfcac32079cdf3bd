from __future__ import annotations

from typing import Annotated

import numpy as np

from ..errors import UsageError
from ..lens import lens
from ..progress import over
from ..tracing import trace
from ..types import LAST, Between, Check, Dataset, Finding, LayerName, Network
from ..views import Table

_BATCH = 64


@lens(on="b d | b c h w")
def concept_neurons(
    network: Network,
    data: Dataset,
    *,
    layer: LayerName = LAST,
    shuffles: Annotated[int, Between(20, 5000)] = 200,
    limit: Annotated[int, Between(1, 1000)] = 10,
    seed: int = 0,
) -> Finding:
    """Is there a unit for a class? How well each unit of a layer tells each class from the others (area under the ROC).

    Numbers: "auc" (units × classes: how often the unit is higher for a picture of the class than for another; ties
    count half), "best" (one unit for each class), "null" (shuffles × classes: the highest of all units when the labels
    are shuffled), "bar" (its 95th percentile, for each class), "classes" (indices of the columns: classes with at
    least one picture; classes without any have no column). A unit of maps is the highest value of a channel.
    With many units one is always good by chance, so each class's best is compared with the best of all units on
    shuffled labels, and the best of all with the best of all units and classes.

    Options:
        layer: the units' layer, with dims b d or b c h w.
        shuffles: how many times the labels are shuffled for the null.
        limit: how many units are listed for each class.
        seed: of the shuffling.

    Raises DataError when the data do not fit the network, UsageError when they are all of one class.
    Source: Bau, Zhou, Khosla, Oliva and Torralba (2017), "Network dissection"; Morcos, Barrett, Rabinowitz and
    Botvinick (2018) for the warning that such units need not matter.

    >>> import neuralmine as nm
    >>> finding = nm.look("concept_neurons", nm.load("digits"), nm.datasets.load("digits"), layer="hidden1")
    >>> finding.numbers["auc"].shape
    (16, 10)
    """
    labels = np.asarray(data.labels)
    present = np.unique(labels)
    if len(present) < 2:
        raise UsageError(
            f"All {len(labels)} pictures are of one class, so there is nothing to tell apart.", "Give two classes."
        )
    values = np.concatenate(
        [
            _units(network, data.images[i : i + _BATCH], layer)
            for i in over(range(0, len(labels), _BATCH), "batch", until=0.8)
        ]
    )
    is_class = (labels[:, None] == present).astype(np.float64)
    ranks = ranked(values)
    areas = auc(ranks, is_class)
    generator = np.random.default_rng(seed)
    null = np.stack([auc(ranks, generator.permutation(is_class)).max(0) for _ in over(range(shuffles), "shuffle")])
    bar = np.quantile(null, 0.95, axis=0)
    best = areas.argmax(0)
    top = areas.max(0)
    beating = (areas > bar).sum(0)
    names = [data.classes[i] for i in present]
    rows = [
        (names[column], int(unit), float(areas[unit, column]), float(bar[column]))
        for column in range(len(present))
        for unit in np.argsort(-areas[:, column], kind="stable")[:limit]
    ]
    chosen, whole = int(top.argmax()), float(np.quantile(null.max(1), 0.95))
    kind = "channels, by their highest value" if network.layer(layer).dims == "b c h w" else "units"
    having = int((top > bar).sum())
    return Finding(
        {"auc": areas, "best": best, "null": null, "bar": bar, "classes": present},
        (
            Table(
                f"the best of {len(areas)} {kind}, for each class",
                ("class", "unit", "area under the ROC", "best of all by chance"),
                tuple(rows),
            ),
        ),
        (
            Check(
                "the best unit is better than the best by chance",
                float(top[chosen]),
                whole,
                None,
                bool(top[chosen] > whole),
                f"Unit {best[chosen]} for {names[chosen]}; null: 95th percentile of the best of {len(areas)} units and "
                f"{len(names)} classes on {shuffles} shuffles of the labels.",
            ),
            Check(
                "classes that have a unit",
                float(having),
                0.05 * len(names),
                None,
                None,
                "Classes whose best unit is above the 95th percentile of the best of all units on shuffled labels; by "
                f"chance one in twenty is. No unit has to be used by later layers for it.{_few(labels, present)}",
            ),
        ),
        summary=f"{layer}: unit {best[chosen]} tells {names[chosen]} best (area {top[chosen]:.3f}; the best of all by chance "
        f"{whole:.3f}). {having} of {len(names)} classes have a unit better than chance, {int(np.median(beating))} "
        f"of {len(areas)} units in the median class. {len(labels)} pictures. {data.note}".rstrip(),
    )


def ranked(values: np.ndarray) -> np.ndarray:
    """The ranks of each column's values, from 1; equal values share the mean of theirs.

    >>> ranked(np.array([[0.3], [0.1], [0.3]])).ravel().tolist()
    [2.5, 1.0, 2.5]
    """
    from scipy.stats import rankdata

    return np.asarray(rankdata(values, axis=0), dtype=np.float64)


def auc(ranks: np.ndarray, is_class: np.ndarray) -> np.ndarray:
    """Units × classes: the area under the ROC curve of every unit (n × units) for every class (n × classes, 0 or 1).

    >>> auc(ranked(np.array([[0.1], [0.4], [0.4], [0.9]])), np.array([[0.0], [0.0], [1.0], [1.0]])).tolist()
    [[0.875]]
    """
    yes = is_class.sum(0)
    return (ranks.T @ is_class - yes * (yes + 1) / 2) / (yes * (len(is_class) - yes))


def _units(network: Network, images: np.ndarray, layer: str) -> np.ndarray:
    values = trace(network, images, layers=[layer])[layer].numpy()
    return values.max((2, 3)) if values.ndim == 4 else values


def _few(labels: np.ndarray, present: np.ndarray) -> str:
    fewest = min(int((labels == one).sum()) for one in present)
    return "" if fewest >= 5 else f" The smallest class has only {fewest} picture{'' if fewest == 1 else 's'}."
