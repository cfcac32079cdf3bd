from __future__ import annotations

from itertools import pairwise

import numpy as np

from ..dense import WeightedSum, weighted_sums
from ..errors import NetworkError
from ..lens import lens
from ..types import Check, Dataset, Finding, Network
from ..views import Grid, Table, number

SAME = 1e-6


@lens()
def linear_collapse(network: Network, data: Dataset) -> Finding:
    """The layers multiplied into one matrix, beside what the network really does: without activations both are the same.

    W = Wₙ … W₂ W₁ and b = Wₙ(… W₂ b₁ + b₂ …) + bₙ are what the layers would be without the activations between them.
    Beside it is the matrix measured by running the network: one input raised by 1 at a time, from 0. Both stop at the
    last layer's sums: what the output does with its sum moves no line.

    Numbers: "product" and "measured" (outputs × inputs), "product_bias" and "measured_bias", "gap" (the Frobenius norm
    of product − measured, biases included), "off" (for each example, the largest difference between the network's
    sums and those of the one matrix), "unexplained" (the share of the sums' variance over the data that no one
    matrix can give: what is left of the best fit by least squares).

    Raises NetworkError for a network whose weighted sums do not follow one another.

    >>> import neuralmine as nm
    >>> from neuralmine.architectures import build
    >>> net = nm.load(build({"sizes": [2, 4, 4, 1], "activation": "identity"}), shape=(2,), loss="squared")
    >>> float(nm.look("linear_collapse", net, nm.datasets.load("xor")).numbers["gap"]) < 1e-6
    True
    """
    sums, encoded, _ = weighted_sums(network, data.images)
    _check_chain(sums)
    weights = [w.linear.weight.detach().cpu().double().numpy() for w in sums]
    biases = [
        np.zeros(len(weight)) if w.linear.bias is None else w.linear.bias.detach().cpu().double().numpy()
        for w, weight in zip(sums, weights, strict=True)
    ]
    product, bias = weights[0], biases[0]
    for weight, own in zip(weights[1:], biases[1:], strict=True):
        product, bias = weight @ product, weight @ bias + own
    inputs = encoded.detach().cpu().double().numpy().reshape(len(data), -1)
    made = sums[-1].sums.detach().cpu().double().numpy()
    measured, measured_bias = _measured(network, inputs.shape[1])
    gap = float(np.sqrt(((product - measured) ** 2).sum() + ((bias - measured_bias) ** 2).sum()))
    off = np.abs(inputs @ product.T + bias - made).max(1)
    left = _left(inputs, made)
    between = [w.activation for w in sums[:-1] if w.activation not in ("", "Identity")]
    sizes = [weights[0].shape[1], *(len(weight) for weight in weights)]
    limit = float(max(np.abs(product).max(), np.abs(measured).max())) or 1.0
    return Finding(
        {
            "product": product, "product_bias": bias, "measured": measured, "measured_bias": measured_bias,
            "gap": np.array(gap), "off": off, "unexplained": np.array(left),
        },
        (
            Grid("the layers multiplied", product, "signed", limit),
            Grid("measured by running the network", measured, "signed", limit),
            Table(
                "layers",
                ("layer", "matrix", "then"),
                tuple(
                    (w.name, f"{len(weight)} × {weight.shape[1]}", w.activation or "as it is")
                    for w, weight in zip(sums, weights, strict=True)
                ),
            ),
        ),
        (
            Check("the layers are one matrix", gap, None, None, gap < SAME,
                  f"‖W − measured‖, with the biases; holds below {SAME:g}. It fails where an activation lies between the layers."),
            Check("one matrix does what the network does on the data", float(off.max()), None, None, bool(off.max() < SAME * max(1.0, float(np.abs(made).max()))),
                  f"The largest difference of a sum over {len(data)} examples."),
        ),
        f"{len(weights)} layers ({'-'.join(map(str, sizes))}) multiplied give {len(product)} × {product.shape[1]}; the gap to the network is "
        f"{number(gap)}. " + (f"Between them lie {', '.join(sorted(set(between)))}: " if between else "No activation lies between them: ")
        + f"{100 * left:.3g} % of what it puts out over the data is beyond any one matrix.",
        provenance={"activations": between},
    )  # fmt: skip


def _check_chain(sums: list[WeightedSum]) -> None:
    widths = [(w.linear.in_features, w.linear.out_features) for w in sums]
    follow = all(before[1] == after[0] for before, after in pairwise(widths))
    if sums[0].source != "input" or not follow or len({w.linear for w in sums}) < len(sums):
        raise NetworkError(
            "The weighted sums of this network do not follow one another from its input to its output.",
            "Choose a plain feed-forward net, such as 64-16-10.",
        )


def _measured(network: Network, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The last sums at 0, and how far each moves when one input is raised by 1."""
    import torch

    like = next(network.module.parameters())
    steps = torch.cat([torch.zeros(1, width), torch.eye(width)]).to(like).reshape(-1, *network.shape)
    sums, _, _ = weighted_sums(network, steps)
    made = sums[-1].sums.detach().cpu().double().numpy()
    return (made[1:] - made[0]).T, made[0]


def _left(inputs: np.ndarray, made: np.ndarray) -> float:
    """1 − R² of the best affine fit."""
    given = np.concatenate([inputs, np.ones((len(inputs), 1))], 1)
    fitted = given @ np.linalg.lstsq(given, made, rcond=None)[0]
    spread = ((made - made.mean(0)) ** 2).sum()
    return float(((made - fitted) ** 2).sum() / spread) if spread > 0 else 0.0
