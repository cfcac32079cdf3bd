"""One picture's codes: what every layer makes of it, in a row, so that two pictures can be compared layer by layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import DataError
from .pictures import fitted, opened
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
