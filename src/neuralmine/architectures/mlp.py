"""Plain feed-forward networks of any depth and width."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from ..errors import UnknownName, UsageError

ACTIVATIONS = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "identity": nn.Identity,  # no activation: all layers together are one matrix
}
DTYPES = {"float64": torch.float64, "float32": torch.float32}


def mlp(
    sizes: Sequence[int],
    *,
    activation: str = "sigmoid",
    output: str = "sigmoid",
    bias: bool = True,
    dropout: float = 0.0,
    batch_norm: bool = False,
    dtype: str = "float64",
    seed: int = 0,
) -> nn.Sequential:
    """A multilayer net: blocks hidden1, hidden2, …, output, each a `.sum` (weights and bias) and an `.activation`.

    Takes a batch of any shape, flattens it, and puts out b × sizes[-1]. `output` is "sigmoid" (for the squared
    loss) or "linear" (logits, for cross-entropy). `dropout` comes after each hidden activation, `batch_norm` between
    each hidden sum and its activation. Weights and biases start uniform in ±1/√inputs, from `seed`
    alone. Raises UsageError for fewer than two sizes or sizes below 1, UnknownName for an unknown activation.

    >>> mlp([64, 16, 10])(torch.zeros(2, 8, 8, dtype=torch.float64)).shape
    torch.Size([2, 10])
    """
    sizes = _checked(sizes)
    for kind, name, allowed in (("activation", activation, ACTIVATIONS), ("dtype", dtype, DTYPES)):
        if name not in allowed:
            raise UnknownName(kind, name, allowed)
    if output not in ("sigmoid", "linear"):
        raise UnknownName("output", output, ("sigmoid", "linear"))
    if not 0 <= dropout < 1:
        raise UsageError(f"dropout is {dropout}; it must lie from 0 to below 1.", "Choose a value in between.")
    generator = torch.Generator().manual_seed(seed)
    blocks: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for place, (fan_in, fan_out) in enumerate(pairwise(sizes), start=1):
        last = place == len(sizes) - 1
        linear = nn.utils.skip_init(nn.Linear, fan_in, fan_out, bias=bias, dtype=DTYPES[dtype])
        with torch.no_grad():
            for parameter in linear.parameters():
                parameter.uniform_(-(fan_in**-0.5), fan_in**-0.5, generator=generator)
        parts: OrderedDict[str, nn.Module] = OrderedDict(sum=linear)
        if not last:
            if batch_norm:
                parts["norm"] = nn.BatchNorm1d(fan_out, dtype=DTYPES[dtype])
            parts["activation"] = ACTIVATIONS[activation]()
            if dropout:
                parts["dropout"] = Dropout(dropout)
        elif output == "sigmoid":
            parts["activation"] = nn.Sigmoid()
        blocks["output" if last else f"hidden{place}"] = nn.Sequential(parts)
    return nn.Sequential(blocks)


def _checked(sizes: Sequence[int]) -> list[int]:
    whole = [size for size in sizes if isinstance(size, (int, float, np.integer)) and size >= 1 and size % 1 == 0]
    if len(whole) < 2 or len(whole) < len(sizes):
        raise UsageError(
            f"Layer sizes {list(sizes)} make no network.", "Give inputs, hidden widths, outputs: [64, 16, 10]."
        )
    return [int(size) for size in whole]


class Dropout(nn.Module):
    """Zeroes each value with probability p while training and scales the rest up; draws from a generator of its own."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.generator = torch.Generator()

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return values
        keep = torch.rand(values.shape, generator=self.generator, dtype=values.dtype) >= self.p
        return values * keep.to(values.device) / (1 - self.p)

    def __deepcopy__(self, memo: dict) -> Dropout:
        copied = Dropout(self.p)
        copied.generator.set_state(self.generator.get_state())  # a torch.Generator cannot be copied in every torch
        copied.training = self.training
        return copied
