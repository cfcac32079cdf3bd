"""Looking inside weighted sums: every call of an nn.Linear, with what went in, what came out, and where it came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import NetworkError, UsageError
from .types import Network

if TYPE_CHECKING:
    import torch


@dataclass(eq=False, slots=True)
class WeightedSum:
    """One call of a Linear: `inputs` b × d_in, `sums` b × d_out; still attached to the graph.

    `block` is the outermost layer that ends in this sum's activation, `activations` what that layer put out,
    `activation` its kind ("" when the sum itself is put out), `source` the layer the inputs come from ("input"
    for the network's own input).
    """

    name: str
    linear: torch.nn.Linear
    inputs: torch.Tensor
    sums: torch.Tensor
    block: str
    source: str = "input"
    activation: str = ""
    activations: Any = None
    shape: tuple[int, ...] = field(default=())  # of the source, without the batch: a picture's rows and columns


def weighted_sums(network: Network, raw: Any) -> tuple[list[WeightedSum], torch.Tensor, torch.Tensor]:
    """Run `raw` with gradients on; every weighted sum in execution order, the encoded input, and the output.

    Only 2-D sums (b × d) are listed. Raises NetworkError when the network has none.
    """
    import torch

    module = network.module
    names = {part: name for name, part in module.named_modules()}
    encoded = raw if isinstance(raw, torch.Tensor) else network.encode(raw)
    found: list[WeightedSum] = []
    made: list[tuple[str, torch.nn.Module, torch.Tensor]] = []
    calls: dict[str, int] = {}

    def finished(part: torch.nn.Module, given: tuple[Any, ...], output: Any) -> None:
        if not isinstance(output, torch.Tensor) or not names[part]:
            return
        calls[names[part]] = calls.get(names[part], -1) + 1
        name = names[part] + (f"#{calls[names[part]]}" if calls[names[part]] else "")
        made.append((name, part, output))
        if isinstance(part, torch.nn.Linear) and output.ndim == 2:
            found.append(WeightedSum(name, part, given[0], output, name))

    hooks = [part.register_forward_hook(finished) for part in module.modules()]
    training = {part: part.training for part in module.modules()}
    try:
        module.eval()
        with torch.enable_grad():
            output = module(encoded.detach().clone().requires_grad_(encoded.is_floating_point()))
    finally:
        for hook in hooks:
            hook.remove()
        for part, flag in training.items():
            part.training = flag
    if not found:
        raise NetworkError(
            "No layer of this network is a plain weighted sum (dims 'b d').", "Choose a network with dense layers."
        )
    for weighted in found:
        _place(weighted, encoded, made, network)
    return found, encoded, output


def _place(
    weighted: WeightedSum,
    encoded: torch.Tensor,
    made: list[tuple[str, torch.nn.Module, torch.Tensor]],
    network: Network,
) -> None:
    """Find where the inputs came from and which activation follows, by the tensors' values: measured, not assumed."""
    import torch

    at = next(i for i, (_, _, tensor) in enumerate(made) if tensor is weighted.sums)
    flat = weighted.inputs.detach()
    weighted.source, weighted.shape = "", ()
    if encoded.numel() == flat.numel() and torch.equal(encoded.reshape(flat.shape), flat):
        weighted.source, weighted.shape = "input", network.shape
    else:
        for name, _, tensor in made[:at]:
            value = tensor.detach()
            if value.numel() == flat.numel() and torch.equal(value.reshape(flat.shape), flat):
                # A block finishes after its parts, so the last match is the outermost.
                weighted.source, weighted.shape = name, tuple(value.shape[1:])
    weighted.activations, weighted.block = weighted.sums, weighted.name
    if at + 1 < len(made) and next(made[at + 1][1].parameters(), None) is None:
        name, part, tensor = made[at + 1]
        if tensor.shape == weighted.sums.shape:
            weighted.activation, weighted.activations = type(part).__name__, tensor
            weighted.block = name
    for name, _, tensor in made[at + 1 :]:
        inside = weighted.name.startswith(name + ".") and tensor.shape == weighted.sums.shape
        if inside and torch.equal(tensor.detach(), weighted.activations.detach()):
            weighted.block = name


def sum_of(sums: list[WeightedSum], layer: str) -> WeightedSum:
    """The weighted sum that a layer's name means: the Linear itself, or the block around it."""
    for weighted in sums:
        if layer in (weighted.name, weighted.block) or weighted.name.startswith(layer + "."):
            return weighted
    raise UsageError(
        f"{layer!r} is no weighted sum, so it has no neurons to open.",
        f"Choose one of {', '.join(w.block for w in sums)}.",
    )


def checked_unit(weighted: WeightedSum, unit: int) -> int:
    """`unit` when the layer has it. Raises UsageError with the range otherwise."""
    if not 0 <= unit < weighted.sums.shape[1]:
        raise UsageError(f"{weighted.block} has neurons 0 to {weighted.sums.shape[1] - 1}, not {unit}.", "Choose one.")
    return unit


def operand_names(weighted: WeightedSum) -> list[str]:
    """What each term of the sum multiplies: "pixel 3,4" (row, column, from 0) or "hidden1 7"."""
    count = weighted.inputs.shape[1]
    if len(weighted.shape) == 2:
        return [f"pixel {i // weighted.shape[1]},{i % weighted.shape[1]}" for i in range(count)]
    if weighted.source == "input":
        return [f"input {i}" for i in range(count)]
    return [f"{weighted.source or 'value'} {i}" for i in range(count)]


def picture(weighted: WeightedSum, values: np.ndarray) -> np.ndarray:
    """A row of values, one for each input, in the shape of what they belong to: rows × columns."""
    shape = weighted.shape if len(weighted.shape) == 2 else (1, values.size)
    return values.reshape(shape)
