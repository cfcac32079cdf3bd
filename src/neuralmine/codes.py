"""Codes: what a layer makes of a picture, in a row, so that pictures can be compared layer by layer and read by a probe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .errors import DataError, NetworkError
from .pictures import fitted, opened
from .progress import over
from .tracing import trace
from .types import Network, Prediction


def picture_for(network: Network, image: Any) -> np.ndarray:
    """The input as colours × rows × columns from 0 to 1: an array of the network's size as it is, else fitted to it.

    Raises DataError for what is no picture for this network.
    """
    shape = network.shape if len(network.shape) == 3 else (1, *network.shape)
    numeric = isinstance(image, (np.ndarray, list, tuple)) or hasattr(image, "detach")
    array = np.asarray(image) if numeric else np.empty(0)
    if array.dtype.kind in "fiub" and array.size == int(np.prod(shape)):
        array = array.astype(np.float64) / (255 if array.dtype == np.uint8 and array.max() > 1 else 1)
        if array.shape[-3:] == (*shape[1:], shape[0]) and array.shape[-3:] != shape:
            array = np.moveaxis(array.reshape(*shape[1:], shape[0]), -1, 0)
        picture = array.reshape(shape)
    else:
        picture = np.asarray(fitted(opened(image), (shape[1], shape[2])), dtype=np.float64)
        picture = picture.mean(0, keepdims=True) if shape[0] == 1 and len(picture) == 3 else picture
        if picture.shape != shape:
            raise DataError(f"This picture has shape {picture.shape}; the network takes {shape}.", "Give it that size.")
    if not (picture.min() >= 0 and picture.max() <= 1):
        raise DataError(
            f"The picture's values go from {picture.min():g} to {picture.max():g}; they must lie from 0 to 1.",
            "Divide 0 … 255 by 255.",
        )
    return picture


def codes_of(network: Network, picture: np.ndarray) -> tuple[dict[str, np.ndarray], Prediction]:
    """What each layer of numbers puts out for one picture, in a row, and what the network says."""
    seen = trace(network, picture.reshape(network.shape).astype(np.float32))
    values = {name: activation.value for name, activation in seen.items()}
    codes = {
        name: value.detach().flatten().cpu().numpy()
        for name, value in values.items()
        if value.is_floating_point() and value.ndim and len(value) == 1
    }
    return codes, seen.prediction


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    """1 for two that are the same, 0 where just one is all 0."""
    if np.array_equal(one, other):
        return 1.0
    one, other = one.astype(np.float64), other.astype(np.float64)
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(np.clip(one @ other / lengths, -1, 1)) if lengths else 0.0


MEMORY = 1 << 26  # numbers of codes that are held at a time: 256 MB
_BATCH = 64
_COLUMNS = 1 << 14  # numbers of each code that are turned to double precision at a time
_ALIKE = 8  # pictures on which a layer must differ from the one before to count as a layer of its own


def layer_names(network: Network, images: np.ndarray, most: int = 0) -> list[str]:
    """The layers that change their input, in execution order; at most so many, spread from the first to the last.

    A layer that only passes on what it gets (flatten, dropout, the block around a layer) is left out, and so is one
    with fewer than three numbers, over which no correlation means anything. Raises NetworkError when none is left.
    """
    seen = trace(network, images[:_ALIKE])
    before, names = np.asarray(images[:_ALIKE], dtype=np.float32).ravel(), []
    for name, activation in seen.items():
        value = activation.value
        if not value.is_floating_point() or value.ndim < 2 or len(value) != len(images[:_ALIKE]):
            continue
        now = value.detach().cpu().float().numpy()
        if now.size >= 3 * len(now) and not np.array_equal(now.ravel(), before):
            names.append(name)
        before = now.ravel()
    if not names:
        raise NetworkError("No layer of this network gives three numbers or more of its own.", "Load another network.")
    if most and len(names) > most:
        names = [names[i] for i in np.unique(np.linspace(0, len(names) - 1, most).round().astype(int))]
    return names


def codes_by_layer(network: Network, images: np.ndarray, names: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Each of these layers with its codes of all pictures, pictures × numbers; few are held in memory at a time."""
    sizes = {layer.name: int(np.prod(layer.shape[1:])) * len(images) for layer in network.layers}
    groups: list[list[str]] = []
    for name in names:
        if not groups or sum(sizes[one] for one in [*groups[-1], name]) > MEMORY:
            groups.append([])
        groups[-1].append(name)
    for group in over(groups, "pass"):
        yield from _codes(network, images, group).items()


def _codes(network: Network, images: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for start in over(range(0, len(images), _BATCH), "batch"):
        seen = trace(network, images[start : start + _BATCH], layers=names)
        for name in names:
            parts[name].append(seen[name].value.detach().flatten(1).cpu().float().numpy())
    return {name: np.concatenate(rows) for name, rows in parts.items()}


def dissimilarity(codes: np.ndarray, measure: str = "correlation") -> np.ndarray:
    """How unlike each two pictures are: the upper triangle, row by row, of 1 − Pearson's r, 1 − cosine, or distance.

    A code without any variation is said to be uncorrelated (1) with every other.

    >>> dissimilarity(np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [3.0, 2.0, 1.0]])).round(6).tolist()
    [0.0, 2.0, 2.0]
    """
    rows = np.asarray(codes).reshape(len(codes), -1)
    middle = rows.mean(1, keepdims=True, dtype=np.float64) if measure == "correlation" else 0.0
    products = np.zeros((len(rows), len(rows)))
    for start in range(0, rows.shape[1], _COLUMNS):  # in double precision, but never all of it at once
        part = rows[:, start : start + _COLUMNS].astype(np.float64) - middle
        products += part @ part.T
    upper = np.triu_indices(len(rows), 1)
    squares = np.diagonal(products)
    if measure == "euclidean":
        return np.sqrt(np.maximum(squares[:, None] + squares - 2 * products, 0))[upper]
    lengths = np.sqrt(squares)
    lengths = np.where(lengths <= 1e-12 * max(float(lengths.max()), 1e-300), np.inf, lengths)
    return np.clip(1 - (products / lengths / lengths[:, None])[upper], 0, 2)


def of_classes(labels: np.ndarray) -> np.ndarray:
    """The dissimilarities of a code that knows nothing but the class: 0 for two of the same, 1 for two others."""
    labels = np.asarray(labels)
    return (labels[:, None] != labels)[np.triu_indices(len(labels), 1)].astype(np.float64)


def rank_vector(values: np.ndarray) -> np.ndarray:
    """Ranks with mean 0 and length 1: the dot product of two is Spearman's correlation; all 0 where all are equal."""
    from scipy.stats import rankdata

    ranks = np.asarray(rankdata(values), dtype=np.float64)
    ranks -= ranks.mean()
    length = float(np.linalg.norm(ranks))
    return ranks / length if length else ranks


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's, between two lists of dissimilarities; 0 where one of them is all the same."""
    return float(rank_vector(one) @ rank_vector(other))


def narrow(codes: np.ndarray) -> np.ndarray:
    """The same codes, turned so that they need no more numbers than there are pictures: products of any two stay."""
    rows = np.asarray(codes, dtype=np.float64).reshape(len(codes), -1)
    if rows.shape[1] <= len(rows):
        return rows
    values, vectors = np.linalg.eigh(rows @ rows.T)
    return vectors * np.sqrt(np.maximum(values, 0))


def probe(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """What a linear classifier that learned from `train` says of `test`: ridge, its strength chosen by leave-one-out.

    All codes are centred and scaled by one number, so that layers of any size and range get the same choice.
    """
    from sklearn.linear_model import RidgeClassifierCV

    middle = train.mean(0)
    spread = float(np.sqrt(((train - middle) ** 2).sum(1).mean())) or 1.0
    reader = RidgeClassifierCV(alphas=len(train) * np.logspace(-7, 0, 8))
    return np.asarray(reader.fit((train - middle) / spread, labels).predict((test - middle) / spread))
