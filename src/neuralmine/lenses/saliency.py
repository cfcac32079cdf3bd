from __future__ import annotations

import numpy as np

from ..attribution import explained, input_gradient, question
from ..lens import lens
from ..types import PREDICTED, Finding, Input, Network, Target


@lens(reads="pixels")
def saliency(
    network: Network, image: Input, *, target: Target = PREDICTED, evidence: bool = True, seed: int = 0
) -> Finding:
    """Which pixels change the class most, by the smallest change: the gradient of its score.

    Numbers: "gradient" (the network's input shape; d score / d input as the network takes it), "map" (rows × columns:
    the largest size over the colours). The evidence adds "deletion", "insertion" and their random nulls.

    Options:
        target: the class, by name or number; without one, what the network says.
        evidence: also measure whether the map depends on the weights and beats random orders.
        seed: of the shuffled weights and the random orders.

    Raises UnknownName for a class that does not exist, NetworkError for a network that names no classes.
    Source: Simonyan, Vedaldi and Zisserman (2014), "Deep inside convolutional networks".

    >>> import neuralmine as nm
    >>> digit = nm.datasets.load("digits").images[201]
    >>> nm.look("saliency", nm.load("digits"), digit, target="5", evidence=False).numbers["map"].shape
    (8, 8)
    """
    asked = question(network, image, target)

    def gradient(of: Network) -> np.ndarray:
        return input_gradient(of, asked.encoded, asked.index)[0].cpu().numpy()

    found = gradient(network)
    return explained(
        network, asked, strength(found), lambda other: strength(gradient(other)),
        name="saliency", scale="magnitude", numbers={"gradient": found}, evidence=evidence, seed=seed,
    )  # fmt: skip


def strength(gradient: np.ndarray) -> np.ndarray:
    """The largest size over the colours: rows × columns."""
    return np.abs(gradient).max(0) if gradient.ndim == 3 else np.abs(gradient)
