from __future__ import annotations

import math
from typing import Annotated

import numpy as np

from ..errors import UsageError
from ..lens import lens
from ..tracing import trace
from ..types import LAST, Between, Check, Finding, Input, LayerName, Network, Unit
from ..views import Grid


@lens()
def receptive_field(
    network: Network,
    image: Input,
    *,
    layer: LayerName = LAST,
    unit: Unit = 0,
    probes: Annotated[int, Between(0, 1000)] = 8,
    seed: int = 0,
) -> Finding:
    """Which inputs one unit listens to: its slope by each of them, here, and which can move it at all.

    Numbers: "slope" (d unit / d input at this input, in the input's shape; for a first layer's sum these are its
    weights), "support" (1 where the slope is not 0 at this input or at any of `probes` random ones), "value".
    The check compares the slopes with central differences on the inputs that matter most.

    Options:
        layer: any layer; of a map the unit is counted channel by channel, row by row.
        unit: which value of the layer, from 0.
        probes: how many random inputs the support is looked for with.
        seed: of the random inputs.

    Raises UsageError for a unit that the layer does not have or an input that has no slope (tokens).

    >>> import neuralmine as nm
    >>> net = nm.load("digits")
    >>> field = nm.look("receptive_field", net, nm.datasets.load("digits").images[0], layer="hidden1.sum", unit=2)
    >>> bool(np.allclose(field.numbers["slope"].ravel(), net.module.hidden1.sum.weight[2].detach()))
    True
    """
    import torch

    encoded = network.encode(image)[:1]
    if not encoded.is_floating_point():
        raise UsageError("These inputs are not numbers on a scale, so there is no slope.", "Use an image or a vector.")
    size = math.prod(network.layer(layer).shape[1:])
    if not 0 <= unit < size:
        raise UsageError(f"{layer} has units 0 to {size - 1}, not {unit}.", "Choose one of those.")

    def value_and_slope(inputs: torch.Tensor) -> tuple[float, np.ndarray]:
        inputs = inputs.detach().clone().requires_grad_()
        value = trace(network, inputs, layers=[layer], grad=True)[layer].value.flatten(1)[0, unit]
        if not value.requires_grad:
            return value.item(), np.zeros(inputs.shape[1:])
        (slope,) = torch.autograd.grad(value, inputs, allow_unused=True)
        return value.item(), np.zeros(inputs.shape[1:]) if slope is None else slope[0].cpu().numpy()

    value, slope = value_and_slope(encoded)
    generator = np.random.default_rng(seed)
    support = slope != 0
    for _ in range(probes):
        noise = torch.as_tensor(generator.uniform(0, 1, encoded.shape), dtype=encoded.dtype)
        support |= value_and_slope(noise)[1] != 0
    gap = _central(network, encoded, layer, unit, slope)
    largest = float(np.abs(slope).max(initial=0))
    drawn = slope if slope.ndim == 2 else slope.reshape(slope.shape[0], -1) if slope.ndim == 3 else slope.reshape(1, -1)
    silent = " The slope is 0 everywhere here: the unit is off or saturated, so no small change of the input moves it."
    return Finding(
        {"slope": slope, "support": support.astype(np.int8), "value": np.array(value)},
        (Grid(f"slope of {layer} {unit} by each input", drawn, "signed"),),
        (
            Check(
                "slopes equal central differences",
                gap,
                passed=gap <= 1e-3 if encoded.dtype == torch.float32 else gap <= 1e-5,
                meaning="Largest difference relative to the largest slope, over the 8 inputs that matter most.",
            ),
        ),
        summary=f"{layer} {unit} is {value:.4g}; {int(support.sum())} of {support.size} inputs can move it, most by {largest:.3g}."
        + (silent if largest == 0 else ""),
    )


def _central(network: Network, encoded: object, layer: str, unit: int, slope: np.ndarray) -> float:
    import torch

    assert isinstance(encoded, torch.Tensor)
    step, gap = (1e-3 if encoded.dtype == torch.float32 else 1e-5), 0.0
    largest = float(np.abs(slope).max(initial=0)) or 1.0
    for flat in np.argsort(-np.abs(slope), axis=None)[:8]:
        values = []
        for sign in (1, -1):
            moved = encoded.clone()
            moved.view(-1)[int(flat)] += sign * step
            values.append(trace(network, moved, layers=[layer])[layer].value.flatten(1)[0, unit].item())
        measured = (values[0] - values[1]) / (2 * step)
        gap = max(gap, abs(measured - float(slope.ravel()[flat])) / largest)
    return gap
