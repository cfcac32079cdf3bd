"""One attention head: query × key / √d, softmax, × value (Vaswani et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import UsageError
from .convolution import drawn, of_rank, slopes
from .terms import Formula, Index, Numbers, Operand, Term


class Attention(nn.Module):
    """A head whose weights, b × queries × keys, are what `attention` puts out; `causal` hides later keys."""

    def __init__(self, width: int, head: int, causal: bool) -> None:
        super().__init__()
        self.query = nn.Linear(width, head, dtype=torch.float64)
        self.key = nn.Linear(width, head, dtype=torch.float64)
        self.value = nn.Linear(width, head, dtype=torch.float64)
        self.attention = nn.Softmax(-1)
        self.causal = causal

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.query(x), self.key(x), self.value(x)
        scores = query @ key.mT / query.shape[-1] ** 0.5
        if self.causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).triu(1)
            scores = scores.masked_fill(later, -torch.inf)
        return self.attention(scores) @ value


def attention(width: int = 4, head: int = 3, *, causal: bool = False, seed: int = 0) -> Attention:
    """One head: b × t × width to b × t × head, in float64.

    >>> attention()(torch.zeros(1, 5, 4, dtype=torch.float64)).shape
    torch.Size([1, 5, 3])
    """
    return drawn(Attention(width, head, causal), seed)


def arithmetic(
    example: Any, weights: Mapping[str, Any], upstream: Any = None, *, causal: bool = False
) -> dict[str, np.ndarray]:
    """Each query × each key, the softmax of their sums, and the mix of values; and back. `example` is t × width.

    products are t × t × head: query q × key k, number by number; scores = their sums / √head, −∞ where `causal` hides;
    attention = softmax over keys: powers = e^(score − peak), ÷ their totals; mixed (t × t × head) = attention × value, whose sum over keys is the output.
    Raises UsageError for shapes that do not fit.

    >>> eye = {f"{n}.weight": np.eye(2) for n in ("query", "key", "value")}
    >>> worked = arithmetic([[1.0, 0.0], [0.0, 1.0]], eye, causal=True)
    >>> worked["products"][1, 1].tolist(), worked["attention"].round(3).tolist()
    ([0.0, 1.0], [[1.0, 0.0], [0.33, 0.67]])
    """
    x = of_rank(example, 2, "input")
    parts = {}
    for name in ("query", "key", "value"):
        matrix = np.asarray(weights[f"{name}.weight"], dtype=np.float64)
        if matrix.ndim != 2 or matrix.shape[1] != x.shape[1]:
            raise UsageError(f"{name} weights of {matrix.shape} do not fit an input of {x.shape}.", "Check the width.")
        parts[name] = x @ matrix.T + np.asarray(weights.get(f"{name}.bias", 0.0), dtype=np.float64)
    query, key, value = parts.values()
    root = query.shape[1] ** 0.5
    products = query[:, None] * key[None]
    scores = products.sum(-1) / root
    if causal:
        scores = np.where(np.triu(np.ones_like(scores), 1) > 0, -np.inf, scores)
    peaks = scores.max(-1)
    powers = np.exp(scores - peaks[:, None])
    totals = powers.sum(-1)
    shares = powers / totals[:, None]
    mixed = shares[..., None] * value[None]
    output = mixed.sum(1)
    d_output = slopes(upstream, output)
    d_attention = (d_output[:, None] * value[None]).sum(-1)
    # One share can only rise as the others fall: the mean that they fall by is taken off.
    d_means = (shares * d_attention).sum(-1)
    d_scores = shares * (d_attention - d_means[:, None])
    d_parts = {
        "query": (d_scores[..., None] * key[None]).sum(1) / root,
        "key": (d_scores[..., None] * query[:, None]).sum(0) / root,
        "value": (shares[..., None] * d_output[:, None]).sum(0),
    }
    worked = {
        "input": x, **parts, "products": products, "scores": scores, "peaks": peaks, "powers": powers, "totals": totals,
        "attention": shares, "mixed": mixed, "output": output, "d_output": d_output, "d_attention": d_attention,
        "d_means": d_means, "d_scores": d_scores,
    }  # fmt: skip
    d_input = np.zeros_like(x)
    for name, slope in d_parts.items():
        worked |= {f"d_{name}": slope, f"d_{name}.weight": slope.T @ x}
        if f"{name}.bias" in weights:
            worked[f"d_{name}.bias"] = slope.sum(0)
        d_input = d_input + slope @ np.asarray(weights[f"{name}.weight"], dtype=np.float64)
    return {**worked, "d_input": d_input}


def formulas(numbers: Numbers, *, causal: bool = False) -> dict[str, Formula]:
    """Where each number of `arithmetic` came from."""
    root = numbers["query"].shape[1] ** -0.5

    def score(at: Index) -> list[Term]:
        if causal and at[1] > at[0]:
            return [Term(-float("inf"))]  # a later key: hidden
        return [Term(root, (Operand("products", (*at, d)),)) for d in range(numbers["products"].shape[2])]

    found = {
        "input": Formula("t n", "What goes in: one row for each token."),
        "products": Formula("q k d", "Query × key, number by number.", "query[q d] key[k d]"),
        "scores": Formula(
            "q k", "How well a query and a key agree: their products' sum ÷ √d; −∞ where the key is hidden.", score
        ),
        "peaks": Formula("q", "The largest score: taken off so that no power overflows.", "scores[q k]", "largest"),
        "powers": Formula("q k", "e to the score − the largest.", "scores[q k] + - peaks[q]", "exp"),
        "totals": Formula("q", "All powers of this query.", "powers[q k]"),
        "attention": Formula("q k", "Softmax: this key's share of the query's attention.", "powers[q k] /totals[q]"),
        "mixed": Formula("q k d", "Attention × value.", "attention[q k] value[k d]"),
        "output": Formula("q d", "The values, weighted by the attention and added.", "mixed[q k d]"),
        "d_output": Formula("q d", "The slope coming in: how the loss moves with this output."),
        "d_attention": Formula("q k", "How the loss moves with this share: slope × value.", "d_output[q d] value[k d]"),
        "d_means": Formula("q", "The mean that all shares fall by when one rises.", "attention[q k] d_attention[q k]"),
        "d_scores": Formula(
            "q k",
            "One share can only rise as the others fall: share × (its slope − the mean).",
            "attention[q k] d_attention[q k] + - attention[q k] d_means[q]",
        ),
        "d_query": Formula("t d", "What comes back to this query.", f"{root!r} d_scores[t k] key[k d]"),
        "d_key": Formula("t d", "What comes back to this key.", f"{root!r} d_scores[q t] query[q d]"),
        "d_value": Formula("t d", "What comes back to this value.", "attention[q t] d_output[q d]"),
        "d_input": Formula(
            "t n",
            "How the loss moves with this input: by its query, its key and its value.",
            " + ".join(f"d_{name}[t d] {name}.weight[d n]" for name in ("query", "key", "value")),
        ),
    }
    for name in ("query", "key", "value"):
        bias = f"{name}.bias" in numbers
        found |= {
            f"{name}.weight": Formula("d n", f"How much an input counts for the {name}."),
            name: Formula(
                "t d",
                f"This token's {name}: its row × weights.",
                f"input[t n] {name}.weight[d n]" + (f" + {name}.bias[d]" if bias else ""),
            ),
            f"d_{name}.weight": Formula("d n", "How the loss moves with this weight.", f"d_{name}[t d] input[t n]"),
        }
        if bias:
            found[f"{name}.bias"] = Formula("d", f"What is added to the {name}.")
            found[f"d_{name}.bias"] = Formula("d", "How the loss moves with this bias.", f"d_{name}[t d]")
    return found
