"""A dense layer: every input × its weight, summed, plus a bias, through an activation (Rosenblatt 1958; Rumelhart et al. 1986); and a loss."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import UnknownName, UsageError
from .convolution import drawn, of_rank, slopes
from .mlp import ACTIVATIONS
from .terms import Formula, Numbers

KINDS = (*ACTIVATIONS, "linear")
LOSSES = ("squared", "cross_entropy")


def dense(inputs: int = 4, outputs: int = 3, *, activation: str = "sigmoid", seed: int = 0) -> nn.Sequential:
    """One layer, `.sum` and `.activation`: b × inputs to b × outputs, in float64.

    Raises UnknownName for another activation; "linear" is none.

    >>> dense(64, 10)(torch.zeros(2, 64, dtype=torch.float64)).shape
    torch.Size([2, 10])
    """
    if activation not in KINDS:
        raise UnknownName("activation", activation, KINDS)
    parts: OrderedDict[str, nn.Module] = OrderedDict(sum=nn.Linear(inputs, outputs, dtype=torch.float64))
    if activation != "linear":
        parts["activation"] = ACTIVATIONS[activation]()
    return drawn(nn.Sequential(parts), seed)


def arithmetic(
    example: Any,
    weights: Mapping[str, Any],
    upstream: Any = None,
    *,
    activation: str = "sigmoid",
    loss: str | None = None,
    targets: Any = None,
) -> dict[str, np.ndarray]:
    """Input × weight for each output, and back. `example` is a batch, b × inputs; weights are outputs × inputs.

    products are b × outputs × inputs; with a `loss` ("squared", or "cross_entropy" of the softmax of the outputs) and
    the right classes as `targets`, example_losses are what each example adds, contributions their shares of the mean,
    and the slope with respect to the output is the loss's own instead of `upstream`.
    Raises UnknownName for another activation or loss, UsageError for shapes and classes that do not fit.

    >>> one = {"sum.weight": [[2.0, -1.0]], "sum.bias": [0.5]}
    >>> worked = arithmetic([[1.0, 3.0]], one, activation="relu")
    >>> worked["products"].tolist(), worked["sums"].tolist(), worked["output"].tolist(), worked["d_input"].tolist()
    ([[[2.0, -3.0]]], [[-0.5]], [[0.0]], [[0.0, 0.0]])
    """
    if activation not in KINDS:
        raise UnknownName("activation", activation, KINDS)
    x, weight = of_rank(example, 2, "input"), of_rank(weights["sum.weight"], 2, "weight")
    if weight.shape[1] != x.shape[1]:
        raise UsageError(f"Weights of {weight.shape} do not fit an input of {x.shape}.", "Give one for each input.")
    products = x[:, None] * weight[None]
    sums = products.sum(-1) + np.asarray(weights["sum.bias"], dtype=np.float64)
    if activation == "sigmoid":
        output = 0.5 * (1 + np.tanh(sums / 2))  # as 1/(1 + e^−sum), without overflow
        slope = output * (1 - output)
    elif activation == "tanh":
        output = np.tanh(sums)
        slope = 1 - output**2
    elif activation == "relu":
        output, slope = np.maximum(sums, 0), (sums > 0).astype(float)
    else:
        output, slope = sums, np.ones_like(sums)
    worked = {"input": x, "products": products, "sums": sums, "output": output}
    if loss is None:
        d_output = slopes(upstream, output)
    else:
        measured = _loss(output, loss, targets)
        d_output = measured["d_output"]
        worked |= measured
    d_sums = d_output * slope
    return {
        **worked, "d_output": d_output, "slopes": slope, "d_sums": d_sums,
        "d_products": d_sums[..., None] * x[:, None], "d_sum.weight": d_sums.T @ x, "d_sum.bias": d_sums.sum(0),
        "d_by_output": d_sums[..., None] * weight[None], "d_input": d_sums @ weight,
    }  # fmt: skip


def _loss(output: np.ndarray, loss: str, targets: Any) -> dict[str, np.ndarray]:
    """The loss of each example and its slope; `ideal` is 1 at the right class."""
    if loss not in LOSSES:
        raise UnknownName("loss", loss, LOSSES)
    right = np.asarray(targets)
    if right.shape != (len(output),) or right.min() < 0 or right.max() >= output.shape[1]:
        raise UsageError(f"targets {targets} are no classes of {output.shape}.", "Give one class for each example.")
    ideal = np.eye(output.shape[1])[right]
    if loss == "squared":
        errors = output - ideal
        worked = {"ideal": ideal, "errors": errors, "example_losses": (errors**2).sum(1)}
        d_output = 2 * errors / len(output)
    else:
        peaks = output.max(1)
        powers = np.exp(output - peaks[:, None])
        totals = powers.sum(1)
        shares = powers / totals[:, None]
        worked = {"ideal": ideal, "peaks": peaks, "powers": powers, "totals": totals, "shares": shares}
        worked["example_losses"] = -np.log(shares[np.arange(len(output)), right])
        d_output = (shares - ideal) / len(output)
    contributions = worked["example_losses"] / len(output)
    return {**worked, "contributions": contributions, "loss": contributions.sum(keepdims=True), "d_output": d_output}


def formulas(
    numbers: Numbers, *, activation: str = "sigmoid", loss: str | None = None, targets: Any = None
) -> dict[str, Formula]:
    """Where each number of `arithmetic` came from."""
    found = {
        "input": Formula("b n", "What goes in: one row for each example."),
        "sum.weight": Formula("o n", "How much one input counts for one output."),
        "sum.bias": Formula("o", "What is added to an output's sum, whatever the input."),
        "products": Formula("b o n", "Input × weight.", "input[b n] sum.weight[o n]"),
        "sums": Formula("b o", "All products of one output, plus its bias.", "products[b o n] + sum.bias[o]"),
        "output": Formula(
            "b o", "The sum, through the activation.", "sums[b o]", "" if activation == "linear" else activation
        ),
        "d_sums": Formula("b o", "How the loss moves with this sum.", "d_output[b o] slopes[b o]"),
        "d_products": Formula("b o n", "One example's part of a weight's slope.", "d_sums[b o] input[b n]"),
        "d_sum.weight": Formula("o n", "How the loss moves with this weight, over all examples.", "d_products[b o n]"),
        "d_sum.bias": Formula("o", "How the loss moves with this bias.", "d_sums[b o]"),
        "d_by_output": Formula("b o n", "What one output sends back to one input.", "d_sums[b o] sum.weight[o n]"),
        "d_input": Formula("b n", "How the loss moves with this input: all outputs' parts.", "d_by_output[b o n]"),
    }
    steep = "How steep the activation is at this sum."
    if activation == "relu":
        found["slopes"] = Formula("b o", steep, "sums[b o]", "open")
    elif activation == "sigmoid":
        found["slopes"] = Formula("b o", steep, "output[b o] + - output[b o] output[b o]")
    else:
        squared = " + - output[b o] output[b o]" if activation == "tanh" else ""
        found["slopes"] = Formula("b o", steep, "1" + squared)
    if loss is None:
        return found | {"d_output": Formula("b o", "The slope coming in: how the loss moves with this output.")}
    share = 1 / len(numbers["input"])
    found["ideal"] = Formula("b o", "What the output should be: 1 at the right class.")
    found["contributions"] = Formula("b", "This example's part of the loss.", f"{share!r} example_losses[b]")
    found["loss"] = Formula("z", "The mean over the examples: what training lowers.", "contributions[b]")
    if loss == "squared":
        return found | {
            "errors": Formula("b o", "Output − ideal.", "output[b o] + - ideal[b o]"),
            "example_losses": Formula("b", "The squared errors of this example, added up.", "errors[b o] errors[b o]"),
            "d_output": Formula("b o", "How the loss moves with this output.", f"{2 * share!r} errors[b o]"),
        }
    return found | {
        "peaks": Formula("b", "The largest output: taken off so that no power overflows.", "output[b o]", "largest"),
        "powers": Formula("b o", "e to the output − the largest.", "output[b o] + - peaks[b]", "exp"),
        "totals": Formula("b", "All powers of this example.", "powers[b o]"),
        "shares": Formula("b o", "Softmax: this power's share of the total.", "powers[b o] /totals[b]"),
        "example_losses": Formula("b", "−log of the share given to the right class.", "shares[b o] ideal[b o]", "−log"),
        "d_output": Formula(
            "b o", "How the loss moves with this output.", f"{share!r} shares[b o] + {-share!r} ideal[b o]"
        ),
    }
