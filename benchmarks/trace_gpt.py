"""Trace every layer of a 12-layer GPT, attention weights among them: ours, hooks, nnsight, TransformerLens.

The floor is the plain forward of the same module. Target: ≤ 1.15 of it. TransformerLens runs a module of its own
with the same sizes; `transformerlens forward` is that module without tracing. `--quick` runs a small version.
"""

from __future__ import annotations

import math
from importlib.util import find_spec

import torch
from torch import nn
from trace_rounds import (
    Variant,
    by_copy,
    by_reference,
    compare,
    network_of,
    nnsight_of,
    options,
    torchlens_of,
    wrong_after_in_place,
)

import neuralmine as nm

WORDS = 50257


class Attention(nn.Module):
    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out, self.weights = nn.Linear(d, 3 * d), nn.Linear(d, d), nn.Softmax(-1)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-1, -2)).mul_(1 / math.sqrt(d // self.heads)).masked_fill_(mask, -math.inf)
        return self.out((self.weights(scores) @ v).transpose(1, 2).reshape(b, t, d))


class Block(nn.Module):
    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention, self.norm2 = nn.LayerNorm(d), Attention(d, heads), nn.LayerNorm(d)
        self.mlp = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(approximate="tanh"), nn.Linear(4 * d, d))

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    def __init__(self, d: int, heads: int, layers: int, tokens: int) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(WORDS, d), nn.Embedding(tokens, d)
        self.blocks = nn.ModuleList(Block(d, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, WORDS, bias=False)
        self.register_buffer("mask", torch.ones(tokens, tokens, dtype=torch.bool).triu(1))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        t = tokens.shape[1]
        x = self.words(tokens) + self.positions(torch.arange(t))
        for block in self.blocks:
            x = block(x, self.mask[:t, :t])
        return self.head(self.norm(x))


def transformer_lens_of(d: int, heads: int, layers: int, tokens: torch.Tensor) -> dict[str, Variant]:
    if not find_spec("transformer_lens"):
        return {}
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    model = HookedTransformer(
        HookedTransformerConfig(
            n_layers=layers,
            d_model=d,
            n_ctx=tokens.shape[1],
            d_head=d // heads,
            n_heads=heads,
            d_vocab=WORDS,
            act_fn="gelu_new",
            normalization_type="LN",
            device="cpu",
        )
    ).eval()
    return {
        "transformerlens forward": lambda: model(tokens),
        "transformerlens": lambda: model.run_with_cache(tokens),
    }


def main() -> None:
    given = options()
    d, heads, layers, length = (48, 4, 2, 16) if given.quick else (768, 12, 12, 256)
    module = GPT(d, heads, layers, length).eval()
    tokens = torch.randint(0, WORDS, (1, length))
    network = network_of(module, tokens)
    compare(
        f"trace a {layers}-layer GPT with attention, d {d}, {heads} heads, {length} tokens",
        given,
        {
            "floor": lambda: module(tokens),
            "ours": lambda: nm.trace(network, tokens),
            "by reference": lambda: by_reference(module, tokens),
            "by copy": lambda: by_copy(module, tokens),
            **nnsight_of(module, tokens),
            **transformer_lens_of(d, heads, layers, tokens),
        },
        {"time": ("floor", 1.15)},
        slow=torchlens_of(module, tokens),
        check=lambda: {
            "attention layers": sum(layer.dims == "b h q k" for layer in network.layers),
            "overwritten": wrong_after_in_place(network, tokens),
        },
    )


if __name__ == "__main__":
    main()
