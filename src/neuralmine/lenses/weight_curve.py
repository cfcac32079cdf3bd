from __future__ import annotations

from typing import Annotated

import numpy as np

from ..dense import checked_unit, sum_of, weighted_sums
from ..errors import UsageError
from ..lens import lens
from ..losses import chosen, mean_loss
from ..types import LAST, Between, Check, Dataset, Finding, LayerName, Network, Unit
from ..views import Lines, number


@lens(on="b d")
def weight_curve(
    network: Network,
    data: Dataset,
    *,
    layer: LayerName = LAST,
    unit: Unit = 0,
    source: int = 0,
    span: Annotated[float, Between(1e-6, 1e4)] = 3.0,
    points: Annotated[int, Between(5, 1001)] = 61,
) -> Finding:
    """The real curve that training walks down: loss and accuracy on all images as one single weight is changed.

    Numbers: "values" of the weight, "loss" (mean an image) and "accuracy" at each, "now" (weight, loss), "slope"
    (of the loss at the weight's present value, by autograd).

    Options:
        layer: the layer the weight belongs to.
        unit: the neuron it leads to.
        source: the input it comes from, from 0; −1 for the bias.
        span: how far to look to both sides of its present value.
        points: how many values to try.

    Raises UsageError for a neuron or input that does not exist.

    >>> import neuralmine as nm
    >>> curve = nm.look("weight_curve", nm.load("64-10"), nm.datasets.load("digits"), unit=3, source=20, points=11)
    >>> curve.numbers["loss"].shape
    (11,)
    """
    import copy

    import torch

    sums, _, _ = weighted_sums(network, data.images[:1])
    weighted = sum_of(sums, layer)
    unit = checked_unit(weighted, unit)
    bias = source == -1
    if (bias and weighted.linear.bias is None) or not -1 <= source < weighted.linear.in_features:
        raise UsageError(
            f"{weighted.block} has inputs 0 to {weighted.linear.in_features - 1}"
            + (", and −1 for its bias" if weighted.linear.bias is not None else " and no bias")
            + f"; {source} given.",
            "Choose one of those.",
        )
    address = next(name for name, part in network.module.named_modules() if part is weighted.linear)
    module = copy.deepcopy(network.module).eval()
    parameter = module.get_parameter(f"{address}.{'bias' if bias else 'weight'}")
    where = (unit,) if bias else (unit, source)
    inputs = network.encode(data.images)
    labels = torch.as_tensor(np.asarray(data.labels, dtype=np.int64))
    now_loss = mean_loss(network.loss, module(inputs), labels)
    (gradient,) = torch.autograd.grad(now_loss, parameter)
    now, slope = parameter[where].item(), gradient[where].item()
    values = now + np.linspace(-span, span, points)
    losses, accuracy = np.empty(points), np.empty(points)
    with torch.no_grad():
        for i, value in enumerate(values):
            parameter[where] = float(value)
            output = module(inputs)
            losses[i] = mean_loss(network.loss, output, labels).item()
            accuracy[i] = (chosen(output) == labels).double().mean().item()
        step = 1e-4
        beside = []
        for value in (now + step, now - step):
            parameter[where] = value
            beside.append(mean_loss(network.loss, module(inputs), labels).item())
    measured = (beside[0] - beside[1]) / (2 * step)
    gap = abs(measured - slope) / max(abs(slope), 1e-4)
    name = f"{weighted.block} {unit}, " + ("bias" if bias else f"input {source}")
    return Finding(
        {
            "values": values,
            "loss": losses,
            "accuracy": accuracy,
            "now": np.array([now, now_loss.item()]),
            "slope": np.array(slope),
        },
        (
            Lines(f"loss by the weight of {name}", values, {"loss": losses}, "weight", "loss", now),
            Lines(f"accuracy by the weight of {name}", values, {"accuracy": accuracy}, "weight", "accuracy", now),
        ),
        (
            Check(
                "the slope equals the curve's own",
                gap,
                passed=gap <= (1e-2 if parameter.dtype == torch.float32 else 1e-5),
                meaning="Autograd's slope against the curve a ten-thousandth to both sides, relative.",
            ),
        ),
        summary=f"The weight is {number(now, 4)}; the loss there is {number(now_loss.item(), 5)}, its slope {number(slope)}. Lowest of the {points} values tried: {number(losses.min(), 5)} at {number(values[losses.argmin()], 4)}.",
        provenance={"parameter": f"{address}.{'bias' if bias else 'weight'}", "block": weighted.block},
    )
