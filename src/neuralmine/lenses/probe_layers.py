from __future__ import annotations

from typing import Annotated

import numpy as np

from ..attribution import shuffled_twin
from ..codes import codes_by_layer, layer_names, narrow, probe
from ..errors import UsageError
from ..lens import lens
from ..progress import over
from ..types import Between, Check, Dataset, Finding, Network
from ..views import Lines, Table


@lens()
def probe_layers(
    network: Network,
    data: Dataset,
    *,
    layers: Annotated[int, Between(0, 1000)] = 12,
    limit: Annotated[int, Between(8, 5000)] = 400,
    splits: Annotated[int, Between(1, 50)] = 3,
    seed: int = 0,
) -> Finding:
    """Linear probes: how well can a straight line read the class from the input, and from each layer?

    On one half of the pictures a ridge classifier learns from a layer's codes, its strength chosen by leave-one-out;
    it is asked about the other half. The same for every layer, so what differs is the code alone.

    Numbers: "accuracy" (splits × rows: the input first, then each layer), "shuffled_labels" (the same, taught wrong
    labels: what the probe can do by itself), "shuffled_weights" (the same network with each weight tensor's values
    shuffled: what the architecture gives without learning), "frequent" (share of the most frequent class),
    "pictures" (which were used).

    Options:
        layers: how many layers, spread from the first to the last; 0 for all. Those that only pass on what they get are left out.
        limit: how many pictures, drawn at random.
        splits: how many times the pictures are halved at random.
        seed: of the drawing, the halving and the shuffling.

    Raises NetworkError for a network without layers to read, UsageError for one that reads text, or pictures that are all of one class.
    Source: Alain and Bengio (2016), "Understanding intermediate layers using linear classifier probes"; Hewitt and
    Liang (2019) for the need of a control.

    >>> import neuralmine as nm
    >>> net, data = nm.load("digits"), nm.datasets.load("digits")
    >>> nm.look("probe_layers", net, data, limit=120, splits=2).numbers["accuracy"].shape
    (2, 5)
    """
    if network.domain == "tokens":
        raise UsageError("This network reads text; pictures are read here.", "Load a network that takes pictures.")
    generator = np.random.default_rng(seed)
    chosen = np.sort(generator.permutation(len(data))[:limit])
    images, labels = data.images[chosen], np.asarray(data.labels)[chosen]
    if len(np.unique(labels)) < 2:
        raise UsageError(f"All {len(labels)} pictures are of one class.", "Give pictures of at least two classes.")
    names = layer_names(network, images, layers)
    halves = [_halves(labels, generator) for _ in range(splits)]
    mixed = [generator.permutation(labels[known]) for known, _ in halves]
    told = [labels[known] for known, _ in halves]
    accuracy, wrong, other = [], [], []
    for net in over((network, shuffled_twin(network, seed)), "network"):
        for codes in (images, *(c for _, c in codes_by_layer(net, images, names))):
            rows = narrow(codes)
            (accuracy if net is network else other).append(_right(rows, labels, halves, told))
            if net is network:
                wrong.append(_right(rows, labels, halves, mixed))
    right, chance, plain = (np.array(table).T for table in (accuracy, wrong, other))
    means, rows = right.mean(0), ["input", *names]
    best = int(means[1:].argmax()) + 1
    spread = right.std(0, ddof=1) if splits > 1 else np.zeros(len(rows))
    frequent = float(np.bincount(np.unique(labels, return_inverse=True)[1]).max() / len(labels))
    return Finding(
        {"accuracy": right, "shuffled_labels": chance, "shuffled_weights": plain, "frequent": np.array(frequent), "pictures": chosen},
        (
            Lines("the class, read from each layer by a straight line", np.arange(len(rows)),
                  {"this network": means, "weights shuffled": plain.mean(0), "labels shuffled": chance.mean(0)},
                  "layer (0 is the input)", "right on unseen pictures"),
            Table("layer by layer", ("layer", "right", "± sd", "weights shuffled", "labels shuffled"),
                  tuple((name, float(means[i]), float(spread[i]), float(plain[:, i].mean()), float(chance[:, i].mean())) for i, name in enumerate(rows))),
        ),
        (
            Check("read better than from the input", float(means[best]), float(means[0]), (float(right[:, best].min()), float(right[:, best].max())),
                  bool(means[best] > means[0]), f"{rows[best]}, the best of {len(names)} layers, mean of {splits} splits and their range; the null is the input itself."),
            Check("better than with shuffled weights", float(means[best]), float(plain.mean(0)[1:].max()), None, bool(means[best] > plain.mean(0)[1:].max()),
                  "The null is the best layer of the same network with each weight tensor's values shuffled."),
            Check("the probe alone", float(chance.mean(0).max()), frequent, None, bool(chance.mean(0).max() < max(2 * frequent, frequent + 0.1)),
                  "Taught wrong labels it must stay near the share of the most frequent class, or it sees what it should not."),
        ),
        summary=f"A linear probe is right in {100 * means[0]:.1f} % from the input, {100 * means[best]:.1f} % from {rows[best]}, {100 * means[-1]:.1f} % from {rows[-1]}, "
        f"the last (weights shuffled: at best {100 * plain.mean(0)[1:].max():.1f} %; most frequent class {100 * frequent:.1f} %). {len(labels)} pictures, "
        f"half to learn from. Pictures the network was trained on flatter it. {data.note}".rstrip(),
        provenance={"layers": names},
    )  # fmt: skip


def _halves(labels: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    order = generator.permutation(len(labels))
    known, asked = order[: len(order) // 2], order[len(order) // 2 :]
    if len(np.unique(labels[known])) < 2:
        raise UsageError("Too few pictures of a second class to learn from.", "Raise the limit, or balance the data.")
    return known, asked


def _right(
    rows: np.ndarray, labels: np.ndarray, halves: list[tuple[np.ndarray, np.ndarray]], told: list[np.ndarray]
) -> list[float]:
    return [
        float((probe(rows[known], said, rows[asked]) == labels[asked]).mean())
        for (known, asked), said in zip(halves, told, strict=True)
    ]
