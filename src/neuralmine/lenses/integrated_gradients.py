from __future__ import annotations

from typing import Annotated, Literal

import numpy as np

from ..attribution import encoded_colour, explained, frozen, question, scores_of
from ..lens import lens
from ..progress import over
from ..tracing import trace
from ..types import PREDICTED, Between, Check, Finding, Input, Network, Target


@lens(reads="pixels")
def integrated_gradients(
    network: Network,
    image: Input,
    *,
    target: Target = PREDICTED,
    baseline: Literal["mean", "black", "grey", "white"] = "mean",
    steps: Annotated[int, Between(1, 1000)] = 32,
    batch: Annotated[int, Between(1, 256)] = 8,
    evidence: bool = True,
    seed: int = 0,
) -> Finding:
    """How much each pixel adds to the class's score on the way from an empty picture: shares that add up.

    The gradient is averaged along the straight line from the baseline to the picture (Gauss–Legendre), times the
    difference. Numbers: "attributions" (the network's input shape), "map" (rows × columns, summed over the colours,
    with sign), "gap" (their sum minus the real difference of the scores: 0 if the steps were enough).

    Options:
        target: the class, by name or number; without one, what the network says.
        baseline: the empty picture: the mean colour (0 as the network takes it), black, grey or white.
        steps: how many places on the way.
        batch: how many of them go through the network at a time.
        evidence: also measure whether the map depends on the weights and beats random orders.
        seed: of the shuffled weights and the random orders.

    Raises UnknownName for a class that does not exist, NetworkError for a network that names no classes.
    Source: Sundararajan, Taly and Yan (2017), "Axiomatic attribution for deep networks".

    >>> import neuralmine as nm
    >>> digit = nm.datasets.load("digits").images[201]
    >>> found = nm.look("integrated_gradients", nm.load("digits"), digit, target="5", evidence=False)
    >>> bool(abs(found.numbers["gap"]) < 1e-3)
    True
    """
    import torch

    asked = question(network, image, target)
    start = encoded_colour(network, baseline).to(asked.encoded.dtype)
    places, weights = np.polynomial.legendre.leggauss(steps)
    way = torch.as_tensor((1 + places) / 2, dtype=asked.encoded.dtype)
    share = torch.as_tensor(weights / 2, dtype=torch.float32).to(asked.encoded.dtype)

    def attributions(of: Network) -> np.ndarray:
        difference = asked.encoded - start
        total = torch.zeros_like(difference)
        with frozen(of):
            for first in over(range(0, steps, batch), "part of the way", until=0.4):
                part = way[first : first + batch].view(-1, *(1,) * (difference.ndim - 1))
                inputs = (start + part * difference).requires_grad_()
                scores = scores_of(trace(of, inputs, layers=[], output=True, grad=True).output)
                (slopes,) = torch.autograd.grad(scores[:, asked.index].sum(), inputs)
                total += (slopes * share[first : first + batch].view_as(part)).sum(0)
        return (total * difference)[0].cpu().numpy()

    found = attributions(network)
    empty = float(scores_of(trace(network, start, layers=[], output=True).output)[0, asked.index])
    gap = float(found.sum(dtype=np.float64)) - (asked.score - empty)
    share_of_gap = abs(gap) / max(abs(asked.score - empty), 1e-12)
    return explained(
        network, asked, summed(found), lambda other: summed(attributions(other)), name="integrated gradients",
        scale="signed", numbers={"attributions": found, "gap": np.array(gap)}, evidence=evidence, seed=seed,
        checks=(
            Check("adds up to the score's difference", share_of_gap, None, None, share_of_gap < 0.05,
                  f"The gap, {gap:.3g}, as a share of the difference {asked.score - empty:.4g}; more steps make it smaller."),
        ),
        summary=f"From {baseline} to this picture the score goes from {empty:.3g} to {asked.score:.3g}.",
    )  # fmt: skip


def summed(attributions: np.ndarray) -> np.ndarray:
    """Over the colours: rows × columns."""
    return attributions.sum(0) if attributions.ndim == 3 else attributions
