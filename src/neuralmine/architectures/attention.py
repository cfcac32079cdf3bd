"""Attention with one head or several: query × key / √d, softmax, × value, joined and projected (Vaswani et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import UsageError
from .convolution import drawn, of_rank, slopes
from .terms import Formula, Index, Numbers, Operand, Rule, Term, terms_of

NAMES = ("query", "key", "value")


class Attention(nn.Module):
    """Heads side by side, whose weights, b × heads × queries × keys, are what `attention` puts out; `causal` hides
    later keys. What the heads make is joined, and goes through `projection` back to the width of the input."""

    def __init__(self, width: int, head: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.query = nn.Linear(width, heads * head, dtype=torch.float64)
        self.key = nn.Linear(width, heads * head, dtype=torch.float64)
        self.value = nn.Linear(width, heads * head, dtype=torch.float64)
        self.attention = nn.Softmax(-1)
        self.projection = nn.Linear(heads * head, width, dtype=torch.float64)
        self.heads, self.causal = heads, causal

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        scores = query @ key.mT / query.shape[-1] ** 0.5
        if self.causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).triu(1)
            scores = scores.masked_fill(later, -torch.inf)
        return self.projection((self.attention(scores) @ value).transpose(1, 2).flatten(2))


def attention(width: int = 4, head: int = 3, *, heads: int = 1, causal: bool = False, seed: int = 0) -> Attention:
    """`heads` heads of `head` numbers each, and their projection: b × t × width to b × t × width, in float64.

    >>> attention(heads=2)(torch.zeros(1, 5, 4, dtype=torch.float64)).shape
    torch.Size([1, 5, 4])
    """
    return drawn(Attention(width, head, heads, causal), seed)


def arithmetic(
    example: Any, weights: Mapping[str, Any], upstream: Any = None, *, heads: int = 1, causal: bool = False
) -> dict[str, np.ndarray]:
    """Each query × each key, the softmax of their sums, the mix of values, and the projection; and back. `example` is t × width.

    query, key and value are heads × t × head. products are heads × t × t × head: query q × key k, number by number;
    scores = their sums / √head, −∞ where `causal` hides; attention = softmax over keys: powers = e^(score − peak), ÷
    their totals; mixed (heads × t × t × head) = attention × value, whose sum over keys is what each head says; joined
    (t × heads·head) lays the heads side by side, and output = joined × projection.
    Raises UsageError for shapes that do not fit.

    >>> eye = {f"{n}.weight": np.eye(2) for n in ("query", "key", "value", "projection")}
    >>> worked = arithmetic([[1.0, 0.0], [0.0, 1.0]], eye, causal=True)
    >>> worked["products"][0, 1, 1].tolist(), worked["attention"][0].round(3).tolist()
    ([0.0, 1.0], [[1.0, 0.0], [0.33, 0.67]])
    """
    x = of_rank(example, 2, "input")
    parts = {}
    for name in NAMES:
        matrix = np.asarray(weights[f"{name}.weight"], dtype=np.float64)
        if matrix.ndim != 2 or matrix.shape[1] != x.shape[1] or heads < 1 or len(matrix) % heads:
            raise UsageError(
                f"{name} weights of {matrix.shape} in {heads} heads do not fit an input of {x.shape}.",
                "Check the width; the heads must divide the rows.",
            )
        made = x @ matrix.T + np.asarray(weights.get(f"{name}.bias", 0.0), dtype=np.float64)
        parts[name] = made.reshape(len(x), heads, -1).swapaxes(0, 1)
    query, key, value = parts.values()
    root = query.shape[2] ** 0.5
    products = query[:, :, None] * key[:, None]
    scores = products.sum(-1) / root
    if causal:
        scores = np.where(np.triu(np.ones_like(scores), 1) > 0, -np.inf, scores)
    peaks = scores.max(-1)
    powers = np.exp(scores - peaks[..., None])
    totals = powers.sum(-1)
    shares = powers / totals[..., None]
    mixed = shares[..., None] * value[:, None]
    said = mixed.sum(2)
    joined = _joined(said)
    projection = np.asarray(weights["projection.weight"], dtype=np.float64)
    if projection.ndim != 2 or projection.shape[1] != joined.shape[1]:
        raise UsageError(
            f"A projection of {projection.shape} does not fit {joined.shape[1]} joined numbers.", "Check heads × head."
        )
    output = joined @ projection.T + np.asarray(weights.get("projection.bias", 0.0), dtype=np.float64)
    d_output = slopes(upstream, output)
    d_joined = d_output @ projection
    d_said = d_joined.reshape(len(x), heads, -1).swapaxes(0, 1)
    d_attention = (d_said[:, :, None] * value[:, None]).sum(-1)
    # One share can only rise as the others fall: the mean that they fall by is taken off.
    d_means = (shares * d_attention).sum(-1)
    d_scores = shares * (d_attention - d_means[..., None])
    d_parts = {
        "query": (d_scores[..., None] * key[:, None]).sum(2) / root,
        "key": (d_scores[..., None] * query[:, :, None]).sum(1) / root,
        "value": (shares[..., None] * d_said[:, :, None]).sum(1),
    }
    worked = {
        "input": x, **parts, "products": products, "scores": scores, "peaks": peaks, "powers": powers, "totals": totals,
        "attention": shares, "mixed": mixed, "head": said, "joined": joined, "output": output, "d_output": d_output,
        "d_projection.weight": d_output.T @ joined, "d_joined": d_joined, "d_head": d_said,
        "d_attention": d_attention, "d_means": d_means, "d_scores": d_scores,
    }  # fmt: skip
    if "projection.bias" in weights:
        worked["d_projection.bias"] = d_output.sum(0)
    d_input = np.zeros_like(x)
    for name, slope in d_parts.items():
        rows = _joined(slope)
        worked |= {f"d_{name}": slope, f"d_{name}.weight": rows.T @ x}
        if f"{name}.bias" in weights:
            worked[f"d_{name}.bias"] = rows.sum(0)
        d_input = d_input + rows @ np.asarray(weights[f"{name}.weight"], dtype=np.float64)
    return {**worked, "d_input": d_input}


def _joined(heads: np.ndarray) -> np.ndarray:
    """heads × t × head to t × heads·head: side by side."""
    return heads.swapaxes(0, 1).reshape(heads.shape[1], -1)


def formulas(numbers: Numbers, *, heads: int = 1, causal: bool = False) -> dict[str, Formula]:
    """Where each number of `arithmetic` came from."""
    size = numbers["query"].shape[2]
    root = size**-0.5
    row = f"{size}h+d"  # of a head's number, where all heads stand side by side

    def score(at: Index) -> list[Term]:
        if causal and at[2] > at[1]:
            return [Term(-float("inf"))]  # a later key: hidden
        return [Term(root, (Operand("products", (*at, d)),)) for d in range(size)]

    def apart(dims: str, rule: str, axis: int) -> Rule:
        """For an array whose `axis` has all heads side by side: the rule knows them as h and d."""
        formula = Formula(dims, "", rule)
        return lambda at: terms_of(numbers, formula, (*at[:axis], at[axis] // size, at[axis] % size, *at[axis + 1 :]))

    found = {
        "input": Formula("t n", "What goes in: one row for each token."),
        "products": Formula("h q k d", "Query × key, number by number.", "query[h q d] key[h k d]"),
        "scores": Formula(
            "h q k", "How well a query and a key agree: their products' sum ÷ √d; −∞ where the key is hidden.", score
        ),
        "peaks": Formula("h q", "The largest score: taken off so that no power overflows.", "scores[h q k]", "largest"),
        "powers": Formula("h q k", "e to the score − the largest.", "scores[h q k] + - peaks[h q]", "exp"),
        "totals": Formula("h q", "All powers of this query.", "powers[h q k]"),
        "attention": Formula(
            "h q k", "Softmax: this key's share of the query's attention.", "powers[h q k] /totals[h q]"
        ),
        "mixed": Formula("h q k d", "Attention × value.", "attention[h q k] value[h k d]"),
        "head": Formula(
            "h q d", "What the head says: the values, weighted by the attention and added.", "mixed[h q k d]"
        ),
        "joined": Formula("q e", "All heads side by side.", apart("q h d", "head[h q d]", 1)),
        "projection.weight": Formula("n e", "How much a joined number counts for the output."),
        "output": Formula("q n", "The joined heads × the projection.", "joined[q e] projection.weight[n e]"),
        "d_output": Formula("q n", "The slope coming in: how the loss moves with this output."),
        "d_projection.weight": Formula("n e", "How the loss moves with this weight.", "d_output[q n] joined[q e]"),
        "d_joined": Formula("q e", "What comes back through the projection.", "d_output[q n] projection.weight[n e]"),
        "d_head": Formula("h q d", "This head's part of what comes back.", f"d_joined[q {row}]"),
        "d_attention": Formula(
            "h q k", "How the loss moves with this share: slope × value.", "d_head[h q d] value[h k d]"
        ),
        "d_means": Formula(
            "h q", "The mean that all shares fall by when one rises.", "attention[h q k] d_attention[h q k]"
        ),
        "d_scores": Formula(
            "h q k",
            "One share can only rise as the others fall: share × (its slope − the mean).",
            "attention[h q k] d_attention[h q k] + - attention[h q k] d_means[h q]",
        ),
        "d_query": Formula("h t d", "What comes back to this query.", f"{root!r} d_scores[h t k] key[h k d]"),
        "d_key": Formula("h t d", "What comes back to this key.", f"{root!r} d_scores[h q t] query[h q d]"),
        "d_value": Formula("h t d", "What comes back to this value.", "attention[h q t] d_head[h q d]"),
        "d_input": Formula(
            "t n",
            "How the loss moves with this input: by its query, its key and its value, of all heads.",
            " + ".join(f"d_{name}[h t d] {name}.weight[{row} n]" for name in NAMES),
        ),
    }
    if "projection.bias" in numbers:
        found["output"] = Formula(
            "q n", found["output"].about, "joined[q e] projection.weight[n e] + projection.bias[n]"
        )
        found["projection.bias"] = Formula("n", "What is added to the output.")
        found["d_projection.bias"] = Formula("n", "How the loss moves with this bias.", "d_output[q n]")
    for name in NAMES:
        bias = f"{name}.bias" in numbers
        found |= {
            f"{name}.weight": Formula("e n", f"How much an input counts for the {name}; the heads' rows lie one below the other."),
            name: Formula(
                "h t d",
                f"This token's {name} in this head: its row × weights.",
                f"input[t n] {name}.weight[{row} n]" + (f" + {name}.bias[{row}]" if bias else ""),
            ),
            f"d_{name}.weight": Formula(
                "e n", "How the loss moves with this weight.", apart("h d n", f"d_{name}[h t d] input[t n]", 0)
            ),
        }  # fmt: skip
        if bias:
            found[f"{name}.bias"] = Formula("e", f"What is added to the {name}.")
            found[f"d_{name}.bias"] = Formula(
                "e", "How the loss moves with this bias.", apart("h d", f"d_{name}[h t d]", 0)
            )
    return found
