from __future__ import annotations

from typing import Annotated, Any

import numpy as np

from ..errors import UsageError
from ..fields import field_of
from ..lens import lens
from ..tracing import trace
from ..types import Between, Check, Finding, Input, LayerName, Network, Unit
from ..views import Grid, Table


@lens(on="b c h w", reads="pixels")
def convolution(
    network: Network,
    image: Input,
    *,
    layer: LayerName = "",
    unit: Unit = 0,
    row: Annotated[int, Between(0, 100000)] = 0,
    column: Annotated[int, Between(0, 100000)] = 0,
) -> Finding:
    """The arithmetic of one place of one feature map: window × kernel, added up, plus the bias.

    Of an activation, a dropout or several maps joined, the convolution that made the map is found by its values.
    Numbers: "window" and "kernel" (inputs × rows × columns), "products" (inputs: what each adds), "bias", "sum",
    "value" (what the layer put out there), "box" (the receptive field in the picture), "source" (map and place).

    Options:
        layer: a layer with maps; without one, the last convolution.
        unit: which map, from 0.
        row: of the place, from 0.
        column: of the place, from 0.

    Raises UsageError for a place that is not there, and for maps that no convolution made alone.

    >>> import torch, neuralmine as nm
    >>> net = nm.load(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()), shape=(3, 12, 12))
    >>> nm.look("convolution", net, np.full((3, 12, 12), 0.5), layer="1", unit=2, row=3, column=3).checks[0].passed
    True
    """
    layer = layer or next((item.name for item in reversed(network.layers) if item.kind == "Conv2d"), "")
    if not layer:
        raise UsageError("This network has no convolution.", "Look through `neuron` instead.")
    shape = network.layer(layer).shape
    if not (0 <= unit < shape[1] and row < shape[2] and column < shape[3]):
        raise UsageError(
            f"{layer} has maps 0 to {shape[1] - 1} of {shape[2]} × {shape[3]}; map {unit}, row {row}, column {column} is not among them.",
            "Choose a place that is there.",
        )
    encoded = network.encode(image)[:1]
    name, own, given, made, value = _source(network, encoded, layer, unit, (row, column))
    part: Any = network.module.get_submodule(name)
    window = _window(part, given, own, row, column)
    kernel = part.weight[own].detach().cpu().numpy()
    bias = 0.0 if part.bias is None else float(part.bias[own].detach())
    products = (window.astype(np.float64) * kernel).reshape(len(kernel), -1).sum(1)
    total = float(products.sum()) + bias
    gap = abs(total - made)
    order = np.argsort(-np.abs(products))[:8]
    box = field_of(network, layer).box(row, column)
    after = "" if name == layer else f" {layer} makes {value:.4g} of it."
    return Finding(
        {
            "window": window, "kernel": kernel, "products": products, "bias": np.array(bias), "sum": np.array(total),
            "value": np.array(value), "box": np.asarray(box), "source": np.array([own, row, column]),
        },
        (
            Table("what each input map adds", ("input map", "window × kernel"), tuple((int(i), float(products[i])) for i in order), ("sum + bias", total)),
            Grid(f"window of input map {order[0]}", window[order[0]], "signed"),
            Grid(f"kernel of map {own} for it", kernel[order[0]], "signed"),
        ),
        (Check("the sum is what the layer put out", gap, None, None, gap <= 1e-4 * max(1.0, abs(made)), f"Distance from {made:.6g}."),),
        f"{name}, map {own}, row {row}, column {column}: {kernel.size} products add up to {total - bias:.4g}, plus the bias {bias:.4g} is {total:.4g}.{after}",
        provenance={"convolution": name},
    )  # fmt: skip


def _source(
    network: Network, encoded: Any, layer: str, unit: int, place: tuple[int, int]
) -> tuple[str, int, Any, float, float]:
    """The convolution that made a map: its name and map, what went into it, and both values at the place."""
    candidates = [
        item.name for item in network.layers[: network.layers.index(network.layer(layer)) + 1]
        if item.kind == "Conv2d" and item.shape[2:] == network.layer(layer).shape[2:] and "#" not in item.name
    ]  # fmt: skip
    given: dict[str, Any] = {}

    def remember(name: str) -> Any:
        return lambda _, args: given.__setitem__(name, args[0].detach())

    hooks = [network.module.get_submodule(name).register_forward_pre_hook(remember(name)) for name in candidates]
    try:
        seen = trace(network, encoded, layers=[layer, *candidates])
    finally:
        for hook in hooks:
            hook.remove()
    wanted = seen[layer].value[0, unit]
    for name in reversed(candidates):
        made = seen[name].value[0]
        for values in (made, made.clamp(min=0), made.clamp(0, 6)):
            same = (values == wanted).flatten(1).all(1)
            # A map that is 0 everywhere after its ReLU could be many; its own number tells which is meant.
            own = (
                unit
                if len(same) > unit and bool(same[unit])
                else int(same.nonzero()[0])
                if int(same.sum()) == 1
                else -1
            )
            if own >= 0:
                return name, own, given[name], float(made[own][place]), float(wanted[place])
    raise UsageError(
        f"No convolution made this map of {layer} alone: it is the work of several layers.",
        "Choose a convolution, or the activation right behind one.",
    )


def _window(part: Any, given: Any, own: int, row: int, column: int) -> np.ndarray:
    """What the kernel lies on: inputs × rows × columns, with the padding's zeros."""
    import torch

    if part.padding_mode != "zeros":
        raise UsageError(f"Padding by {part.padding_mode} is not opened here.", "Choose another layer.")
    (down, right), (step_down, step_right), (apart_down, apart_right) = part.kernel_size, part.stride, part.dilation
    pads = part._reversed_padding_repeated_twice
    padded = torch.nn.functional.pad(given[0], pads)
    per = part.out_channels // part.groups
    inputs = slice(own // per * part.weight.shape[1], (own // per + 1) * part.weight.shape[1])
    rows = row * step_down + apart_down * np.arange(down)
    columns = column * step_right + apart_right * np.arange(right)
    return padded[inputs][:, rows][:, :, columns].cpu().numpy()
