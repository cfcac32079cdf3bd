from __future__ import annotations

import numpy as np

from ..lens import lens
from ..sentences import checked_word, labels_of, stream_layers
from ..tracing import trace
from ..types import LAST, Check, Finding, Input, LayerName, Network
from ..views import Bars


@lens(on="b t d", reads="tokens")
def neighbours(network: Network, text: Input, *, layer: LayerName = LAST, word: int = 1) -> Finding:
    """How much of every other word is in this word's vector at one layer, exactly, by derivatives.

    Numbers: "norms" (tokens: Frobenius norm of d vector of `word` at `layer` / d embedding of each token),
    "shares" (norms ÷ their sum). All d derivatives go backwards in one batch. At the embedding itself every other
    word's share is exactly 0, and so is that of later words in a causal network.

    Options:
        layer: a layer of the residual stream (any layer with dims "b t d").
        word: which token, from 0 (special tokens count).

    Raises UsageError for a token that is not there, NetworkError for a network that does not read text.

    >>> import neuralmine as nm  # doctest: +SKIP
    >>> nm.look("neighbours", nm.load("minilm"), "The Cat Chases Mice", word=2).numbers["shares"].sum()  # doctest: +SKIP
    1.0
    """
    import torch

    names = stream_layers(network)
    tokens = network.tokens(text) if network.tokens else ()
    word = checked_word(tokens, word)
    kept: dict[str, torch.Tensor] = {}

    def as_a_start(embedded: torch.Tensor) -> torch.Tensor:
        kept["start"] = embedded.detach().clone().requires_grad_()
        return kept["start"]

    vector = trace(network, text, layers=[names[0], layer], edits={names[0]: as_a_start}, grad=True)[layer].value[
        0, word
    ]
    start = kept["start"]
    if vector.requires_grad:
        every = torch.eye(vector.numel(), dtype=vector.dtype)
        (jacobian,) = torch.autograd.grad(vector, start, every, is_grads_batched=True, allow_unused=True)
        norms = jacobian[:, 0].double().square().sum((0, 2)).sqrt().numpy()
    else:
        norms = np.zeros(len(tokens))
    total = float(norms.sum())
    shares = norms / total if total else norms
    labels = labels_of(tokens)
    others = np.delete(shares, word)
    return Finding(
        {"norms": norms, "shares": shares},
        (Bars(f"what is in “{labels[word]}” at {layer}", tuple(labels), shares, word, "share", 1.0),),
        (
            Check("share of all other words", float(others.sum()), 1 - 1 / max(len(tokens), 1), None, None,
                  "0 at the embedding; beside it the share if every word counted the same."),
        ),
        summary=f"At {layer}, {100 * others.sum():.1f} % of “{labels[word]}” comes from other words"
        + (f", most from “{labels[int(np.argmax(np.where(np.arange(len(shares)) == word, -1, shares)))]}”." if len(shares) > 1 else "."),
        provenance={"tokens": labels, "layers": list(names)},
    )  # fmt: skip
