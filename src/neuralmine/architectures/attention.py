"""One attention head: query × key / √d, softmax, × value (Vaswani et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import UsageError
from .convolution import drawn, of_rank, slopes


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
    attention = softmax over keys; mixed (t × t × head) = attention × value, whose sum over keys is the output.
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
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    shares = powers / powers.sum(-1, keepdims=True)
    mixed = shares[..., None] * value[None]
    output = mixed.sum(1)
    d_output = slopes(upstream, output)
    d_attention = (d_output[:, None] * value[None]).sum(-1)
    # One share can only rise as the others fall: the mean that they fall by is taken off.
    d_scores = shares * (d_attention - (shares * d_attention).sum(-1, keepdims=True))
    d_parts = {
        "query": (d_scores[..., None] * key[None]).sum(1) / root,
        "key": (d_scores[..., None] * query[:, None]).sum(0) / root,
        "value": (shares[..., None] * d_output[:, None]).sum(0),
    }
    worked = {
        "input": x, **parts, "products": products, "scores": scores, "attention": shares, "mixed": mixed,
        "output": output, "d_output": d_output, "d_attention": d_attention, "d_scores": d_scores,
    }  # fmt: skip
    d_input = np.zeros_like(x)
    for name, slope in d_parts.items():
        worked |= {f"d_{name}": slope, f"d_{name}.weight": slope.T @ x}
        if f"{name}.bias" in weights:
            worked[f"d_{name}.bias"] = slope.sum(0)
        d_input = d_input + slope @ np.asarray(weights[f"{name}.weight"], dtype=np.float64)
    return {**worked, "d_input": d_input}
