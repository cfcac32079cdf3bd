from __future__ import annotations

import numpy as np

from ..dense import checked_unit, operand_names, picture, sum_of, weighted_sums
from ..lens import lens
from ..types import LAST, Check, Finding, Input, LayerName, Network, Unit
from ..views import Grid, Table, number


@lens(on="b d")
def neuron(network: Network, image: Input, *, layer: LayerName = LAST, unit: Unit = 0) -> Finding:
    """One neuron's arithmetic, term by term: input × weight, all added up, + bias, then the activation.

    Numbers: "inputs", "weights" and "products" (one for each input), "bias", "sum" (with the bias), "activation", and
    the activation function around that sum: "curve" (sums × [sum, activation, slope], by torch itself).
    The provenance says from which layer the inputs come ("from"), so that each can be opened in turn.
    The check adds the products up again with exact rounding and compares with what the network computed.

    Options:
        layer: a layer with weighted sums, or one of the blocks around them.
        unit: which neuron of it, from 0.

    Raises UsageError for a layer without weighted sums or a neuron that does not exist.

    >>> import neuralmine as nm
    >>> finding = nm.look("neuron", nm.load("digits"), nm.datasets.load("digits").images[0], layer="hidden1", unit=3)
    >>> finding.numbers["products"].shape
    (64,)
    """
    import math

    sums, _, _ = weighted_sums(network, image)
    weighted = sum_of(sums, layer)
    unit = checked_unit(weighted, unit)
    inputs = weighted.inputs[0].detach().cpu().numpy()
    weight = weighted.linear.weight[unit].detach().cpu().numpy().copy()
    bias = 0.0 if weighted.linear.bias is None else weighted.linear.bias[unit].item()
    products = inputs * weight
    total, activation = weighted.sums[0, unit].item(), weighted.activations[0, unit].item()
    again = math.fsum([*(float(a) * float(b) for a, b in zip(inputs, weight, strict=True)), bias])
    names = operand_names(weighted)
    order = np.argsort(-np.abs(products))
    rows = tuple((names[i], float(inputs[i]), float(weight[i]), float(products[i])) for i in order)
    squashed = (
        f"{weighted.activation.lower()}({number(total, 4)}) = {number(activation, 4)}"
        if weighted.activation
        else "put out as it is"
    )
    return Finding(
        {
            "inputs": inputs,
            "weights": weight,
            "products": products,
            "bias": np.array(bias),
            "sum": np.array(total),
            "activation": np.array(activation),
            "curve": _curve(weighted.activation, total),
        },
        (
            Grid("input × weight", picture(weighted, products), "signed"),
            Table(
                "terms, largest first", ("what", "value", "weight", "value × weight"), rows, ("bias", None, None, bias)
            ),
        ),
        (
            Check(
                "the terms add up to the sum",
                abs(again - total),
                passed=abs(again - total) <= 1e-6 * max(1.0, float(np.abs(products).sum())),
                meaning="The difference between adding the terms with exact rounding and the network's own sum.",
            ),
        ),
        summary=f"{weighted.block} {unit}: {len(inputs)} terms add up to {number(total - bias, 4)}, bias {number(bias, 4)}, sum {number(total, 4)}; {squashed}.",
        provenance={
            "from": weighted.source,
            "block": weighted.block,
            "activation": weighted.activation,
            "sum_layer": weighted.name,
            "names": names,
        },
    )


def _curve(kind: str, around: float) -> np.ndarray:
    """The activation function and its slope from −8 to 8, or as far as the sum lies; the identity when there is none."""
    import torch

    reach = max(8.0, 1.2 * abs(around))
    sums = torch.linspace(-reach, reach, 81, dtype=torch.float64, requires_grad=True)
    made = getattr(torch.nn, kind)()(sums) if kind else sums * 1
    (slope,) = torch.autograd.grad(made.sum(), sums)
    return np.stack([sums.detach().numpy(), made.detach().numpy(), slope.numpy()], 1)
