from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np

from ..errors import UsageError
from ..lens import lens
from ..progress import over
from ..tracing import Edit, trace
from ..types import Between, Check, Dataset, Finding, Layer, Network
from ..views import Bars, Table

if TYPE_CHECKING:
    import torch

_BATCH = 16


@lens()
def ablate_layer(
    network: Network,
    data: Dataset,
    *,
    how: Literal["mean", "zero"] = "mean",
    limit: Annotated[int, Between(2, 100000)] = 64,
    most: Annotated[int, Between(1, 1000)] = 32,
    shuffles: Annotated[int, Between(1, 50)] = 1,
    seed: int = 0,
) -> Finding:
    """Which layers can the network do without? Its accuracy when one layer at a time says the same of every picture.

    Numbers: "accuracy" and "probability" (one for each layer: share of pictures that are right, and mean probability
    of the right class, while that layer puts out zeros or its mean over the pictures; for outputs that are no
    probabilities the mean activation), "null_accuracy" and "null_probability" (the same while the layer's channels
    are swapped at random, in the same way for every picture: all it found is still there, but not where later layers
    look for it), "clean" (accuracy and mean probability of the whole network), "constant" (accuracy of always giving
    the most frequent answer), "images" (indices).
    In a plain chain of layers nothing gets past a replaced one, and every layer is as necessary as any other; the
    figures tell layers apart where there is a way around them: skip connections and parallel branches.

    Options:
        how: what the layer puts out instead: its mean over the pictures, or zeros.
        limit: at most so many pictures, drawn at random.
        most: at most so many layers, evenly spread over the network.
        shuffles: how many random swaps of the channels make the null.
        seed: of the drawing and of the swaps.

    Raises UsageError when the network's answers are not the data's classes, DataError when the pictures do not fit.
    Source: Veit, Wilber and Belongie (2016), "Residual networks behave like ensembles of relatively shallow networks".

    >>> import neuralmine as nm
    >>> finding = nm.look("ablate_layer", nm.load("digits"), nm.datasets.load("digits"), how="zero")
    >>> finding.numbers["accuracy"].shape
    (7,)
    """
    import torch
    from scipy.stats import binom

    generator = np.random.default_rng(seed)
    chosen = np.sort(generator.permutation(len(data))[:limit])
    images, right = data.images[chosen], _answers(network, data)[np.asarray(data.labels)[chosen]]
    scores, means, end = _clean(network, images)
    every = list(means)
    names = [every[i] for i in np.unique(np.linspace(0, len(every) - 1, min(most, len(every))).round().astype(int))]

    def measured(name: str, edit: Edit) -> tuple[float, float]:
        answered = [_run(network, batch, {name: edit}, end) for batch in _batches(images)]
        return _right(np.concatenate(answered), right)

    found, null = np.zeros((len(names), 2)), np.zeros((len(names), shuffles, 2))
    for row, name in enumerate(over(names, "layer")):
        instead = means[name] if how == "mean" else torch.zeros_like(means[name])
        found[row] = measured(name, partial(_replaced, instead=instead))
        axis = _channels(network.layer(name).dims)
        for shuffle in over(range(shuffles), "shuffle"):
            order = torch.as_tensor(generator.permutation(means[name].shape[axis]))
            null[row, shuffle] = measured(name, partial(torch.index_select, dim=axis, index=order))
    accuracy, probability = _right(scores, right)
    constant = float(np.bincount(right).max() / len(right))
    luck = float(binom.ppf(0.95, len(right), constant) / len(right))
    swapped, drop = null.mean(1), accuracy - found[:, 0]
    worst, least = int(drop.argmax()), int(drop.argmin())
    lost = int((found[:, 0] <= luck).sum())
    rows = [(name, network.layer(name).kind, *map(float, (*found[i], *swapped[i]))) for i, name in enumerate(names)]
    words = "its mean over the pictures" if how == "mean" else "zeros"
    return Finding(
        {
            "accuracy": found[:, 0],
            "probability": found[:, 1],
            "null_accuracy": swapped[:, 0],
            "null_probability": swapped[:, 1],
            "clean": np.array([accuracy, probability]),
            "constant": np.array(constant),
            "images": chosen,
        },
        (
            Bars(f"accuracy when a layer puts out {words}", tuple(names), found[:, 0], worst, "share right", 1.0),
            Table(
                f"each layer putting out {words}, and with its channels swapped",
                ("layer", "kind", "right", "score of the right class", "right, swapped", "score, swapped"),
                tuple(rows),
                ("none", "", accuracy, probability, None, None),
            ),
        ),
        (
            Check(
                "the whole network is better than one constant answer",
                accuracy,
                luck,
                None,
                accuracy > luck,
                f"Accuracy on {len(right)} pictures; null: what always giving the most frequent answer reaches in 95 % of "
                "such draws. Without this, nothing can be lost.",
            ),
            Check(
                "accuracy lost without the layer that matters most",
                float(drop[worst]),
                float(accuracy - swapped[worst, 0]),
                None,
                None,
                f"{names[worst]}; beside it what is lost when its channels are swapped. The more is lost by swapping than "
                "by leaving out, the more wrong values harm than missing ones.",
            ),
        ),
        summary=f"Whole: {100 * accuracy:.1f} % of {len(right)} right. With one layer putting out {words}: "
        + (
            f"most is lost without {names[worst]} ({100 * found[worst, 0]:.1f} % right, {100 * swapped[worst, 0]:.1f} % with "
            f"its channels swapped), least without {names[least]} ({100 * found[least, 0]:.1f} %). Without {lost} of "
            f"{len(names)} layers it is no better than always giving one answer ({100 * constant:.1f} %)."
            if drop[worst] > 0
            else f"none of {len(names)} layers costs accuracy; always giving one answer reaches {100 * constant:.1f} %."
        )
        + (f" {data.note}" if data.note else ""),
        provenance={"layers": names},
    )


def _answers(network: Network, data: Dataset) -> np.ndarray:
    """For each of the data's classes the network's answer: by name, or by place when the network's have no names."""
    if set(data.classes) <= set(network.labels):
        return np.array([network.labels.index(name) for name in data.classes])
    unnamed = network.labels == tuple(str(i) for i in range(len(network.labels)))
    if unnamed and len(network.labels) == len(data.classes):
        return np.arange(len(data.classes))
    raise UsageError(
        f"The network answers with {len(network.labels)} labels ({', '.join(network.labels[:3])}, …), the data have "
        f"{len(data.classes)} classes ({', '.join(data.classes[:3])}, …), and they are not the same.",
        "Give data whose classes are named as the network's labels, or load the network with labels=….",
    )


def _batches(images: np.ndarray) -> Iterator[np.ndarray]:
    for first in range(0, len(images), _BATCH):
        yield images[first : first + _BATCH]


def _clean(network: Network, images: np.ndarray) -> tuple[np.ndarray, dict[str, torch.Tensor], str]:
    """The scores, each layer's mean over the pictures (1 × …), and the layer whose value is the output ("" if none)."""
    sums: dict[str, torch.Tensor] = {}
    scores, end = [], next(reversed(network.layers)).name
    for number, batch in enumerate(_batches(images)):
        seen = trace(network, batch)
        scores.append(np.stack([prediction.scores for prediction in seen.predictions]))
        for name, activation in seen.items():
            value = activation.value.detach()
            if number and name in sums:
                sums[name] += value.double().sum(0, keepdim=True)
            elif not number and _replaceable(activation.layer, value, len(batch)):
                sums[name] = value.double().sum(0, keepdim=True)
        if end and not (
            end in seen and seen[end].value.shape == seen.output.shape and seen[end].value.equal(seen.output)
        ):
            end = ""
    return np.concatenate(scores), {name: value / len(images) for name, value in sums.items()}, end


def _replaceable(layer: Layer, value: torch.Tensor, count: int) -> bool:
    return layer.dims.startswith("b ") and value.is_floating_point() and value.ndim > 1 and len(value) == count


def _run(network: Network, batch: np.ndarray, edits: Mapping[str, Edit], end: str) -> np.ndarray:
    """The scores of an edited network. Where a layer is the output, only that one has to be kept."""
    if end:
        output = trace(network, batch, layers=[end], edits=edits)[end].value
    else:
        output = trace(network, batch, edits=edits).output
    return np.stack([prediction.scores for prediction in network.decode(output)])


def _right(scores: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """The share of rows whose highest score is the right one, and the mean score of the right one."""
    of_right = scores[np.arange(len(right)), right]
    return float((scores.argmax(1) == right).mean()), float(of_right.mean(dtype=np.float64))


def _replaced(value: torch.Tensor, instead: torch.Tensor) -> torch.Tensor:
    return instead.to(value.dtype).expand_as(value).clone()


def _channels(dims: str) -> int:
    """The axis that holds a layer's channels: maps and heads have it second, vectors last."""
    axes = dims.split()
    return next((axes.index(axis) for axis in ("c", "h") if axis in axes), len(axes) - 1)
