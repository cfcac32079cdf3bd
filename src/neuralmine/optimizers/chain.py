"""A chain of dense layers, seen through numpy: what can be followed weight by weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from ..errors import UsageError


def _sigmoid(z: np.ndarray) -> np.ndarray:
    # Right in both tails: where exp overflows to infinity the quotient is 0, as it should be.
    e = np.exp(-z)
    e += 1.0
    return np.divide(1.0, e, out=e)


# What each does to the sums, and its slope told from its value.
ACTIVATIONS = {
    "Sigmoid": (_sigmoid, lambda a: a * (1 - a)),
    "Tanh": (np.tanh, lambda a: 1 - a * a),
    "ReLU": (lambda z: np.maximum(z, 0), lambda a: (a > 0).astype(a.dtype)),
    "": (lambda z: z, np.ones_like),
}
# These change nothing at evaluation, and that is where the exact loss is measured.
_PASSED_OVER = ("Flatten", "Dropout", "Identity")
_COMPARED = 16  # images on which the module's own output is compared with the chain's


@dataclass(frozen=True, slots=True, eq=False)
class ChainLayer:
    """A Linear and its activation. The bias is the weight of one more input, which is always 1."""

    name: str
    linear: nn.Linear
    activation: str

    @property
    def weight(self) -> np.ndarray:
        # Taken anew each time: whoever swaps a parameter's data leaves an older view behind.
        return self.linear.weight.detach().numpy()

    @property
    def units(self) -> int:
        return self.linear.out_features

    @property
    def inputs(self) -> int:
        return self.linear.in_features + (self.linear.bias is not None)

    def parameter(self, given: int) -> torch.Tensor:
        return self.linear.bias if given == self.linear.in_features else self.linear.weight

    def column(self, given: int) -> np.ndarray:
        """The weights that this input has to every unit, as a view that can be written."""
        values = self.parameter(given).detach().numpy()
        return values if values.ndim == 1 else values[:, given]

    def place(self, given: int, unit: int) -> tuple[str, tuple[int, ...]]:
        """The parameter's name and the index in it."""
        kind, index = ("bias", (unit,)) if given == self.linear.in_features else ("weight", (unit, given))
        return f"{self.name}.{kind}".lstrip("."), index

    def sums(self, values: np.ndarray) -> np.ndarray:
        made = self.weight.astype(np.float64, copy=False) @ values
        return made if self.linear.bias is None else made + self.linear.bias.detach().numpy()[:, None]

    def act(self, sums: np.ndarray) -> np.ndarray:
        return ACTIVATIONS[self.activation][0](sums)

    def slope(self, values: np.ndarray) -> np.ndarray:
        return ACTIVATIONS[self.activation][1](values)


def chain(module: nn.Module, width: int) -> list[ChainLayer]:
    """The Linear layers of a module that takes `width` inputs, with their activations, in the order of its modules.

    Raises UsageError for anything else in it; whether the module really runs them so is for `check_same` to tell.

    >>> [layer.activation for layer in chain(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), 4)]
    ['Tanh', '']
    """
    found: list[ChainLayer] = []
    for name, part in module.named_modules():
        kind = type(part).__name__
        if next(part.children(), None) is not None or type(part) is nn.Sequential or kind in _PASSED_OVER:
            continue
        if isinstance(part, nn.Linear) and part.in_features == width:
            found.append(ChainLayer(name, part, ""))
            width = part.out_features
        elif kind in ACTIVATIONS and found and not found[-1].activation:
            found[-1] = replace(found[-1], activation=kind)
        else:
            raise _not_followed(f"{name or kind!r} ({kind})")
    if not found:
        raise _not_followed("a network without a Linear layer")
    parameters = [p for layer in found for p in layer.linear.parameters()]
    if len({id(p) for p in parameters}) < len(parameters):
        raise _not_followed("layers that share their weights")
    if any(p.device.type != "cpu" or p.dtype not in (torch.float32, torch.float64) for p in parameters):
        raise _not_followed("weights that are not float32 or float64 on the CPU")
    return found


def check_same(module: nn.Module, inputs: torch.Tensor, outputs: np.ndarray) -> None:
    """Refuse a module whose own output is not the chain's: parts used twice, added, or in another order."""
    flags: Mapping[nn.Module, bool] = {part: part.training for part in module.modules()}
    weight = next(module.parameters())
    try:
        module.eval()
        with torch.no_grad():
            own = module(inputs[:_COMPARED].detach().to(weight)).numpy().astype(np.float64)
    except (RuntimeError, TypeError) as error:
        raise _not_followed(f"a network that does not take these inputs ({error})") from error
    finally:
        for part, flag in flags.items():
            part.training = flag
    tolerance = 1e-3 if weight.dtype == torch.float32 else 1e-6
    size = np.nanmax(np.abs(own), initial=1.0)
    if own.shape != outputs[:_COMPARED].shape or not np.allclose(
        own, outputs[:_COMPARED], rtol=tolerance, atol=tolerance * size, equal_nan=True
    ):
        raise _not_followed("a network whose output is not its layers' one after the other")


def _not_followed(what: str) -> UsageError:
    return UsageError(
        f"One weight at a time cannot follow {what}.",
        "Use a chain of dense layers with sigmoid, tanh or relu, or another optimizer.",
    )
