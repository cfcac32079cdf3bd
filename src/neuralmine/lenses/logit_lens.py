from __future__ import annotations

from typing import Annotated, Any

import numpy as np

from ..errors import NetworkError
from ..lens import lens
from ..sentences import checked_word, labels_of, stream, stream_layers
from ..types import Between, Check, Finding, Input, Network
from ..views import Lines, Table


@lens(reads="tokens")
def logit_lens(network: Network, text: Input, *, word: int = -1, count: Annotated[int, Between(1, 50)] = 5) -> Finding:
    """What a language model would say if it stopped at each layer: the final norm and vocabulary head on every layer.

    Numbers: "ids" and "probability" ((layers + 1) × count), "final" (layers + 1: the probability that each layer gives
    to what the last one chose). The check compares the last layer with the network's own output.

    Options:
        word: which token's vector, from 0; −1 for the last, which says what comes next.
        count: how many words.

    Raises NetworkError for a network without a vocabulary head.
    Source: nostalgebraist (2020), "interpreting GPT: the logit lens".

    >>> import neuralmine as nm  # doctest: +SKIP
    >>> nm.look("logit_lens", nm.load("hf:gpt2"), "The cat chases").summary  # doctest: +SKIP
    """
    import torch

    head = getattr(network.module, "get_output_embeddings", lambda: None)()
    if head is None:
        raise NetworkError(
            "This network has no vocabulary head, so it says no words.", "Load a language model: hf:gpt2."
        )
    seen = stream(network, text)
    word = checked_word(seen.tokens, word % len(seen.tokens) if -len(seen.tokens) <= word < 0 else word)
    finish = _finish(network)
    states = torch.tensor(seen.states[:, word])
    with torch.no_grad():
        # The last state has been through the final norm already, where there is one.
        done = torch.cat([finish(states[:-1]), states[-1:]]) if _normed(network) else finish(states)
        logits = head(_transformed(network, done)).double()
        own = network.module(network.encode(text)).logits[0, word].double()
    shares = logits.softmax(-1).numpy()
    order = np.argsort(-shares, axis=1)[:, :count]
    chosen = int(order[-1, 0])
    spelled = network.spell or str
    picked = np.take_along_axis(shares, order, 1)
    rows = tuple(
        (
            layer,
            ", ".join(f"{spelled(int(i))} {p:.2f}" for i, p in zip(order[layer], picked[layer], strict=True)),
            float(shares[layer, chosen]),
        )
        for layer in range(len(seen.names))
    )
    gap = float((logits[-1] - own).abs().max())
    return Finding(
        {"ids": order, "probability": picked, "final": shares[:, chosen]},
        (
            Table("what each layer would say", ("layer", "words and their probability", f"of “{spelled(chosen)}”"), rows),
            Lines(f"probability of “{spelled(chosen)}”", np.arange(len(rows)), {"probability": shares[:, chosen]}, "layer", "probability"),
        ),
        (Check("the last layer is the network's own output", gap, None, None, gap <= 1e-3 * max(1.0, float(own.abs().max())),
               "Largest difference of a logit between the lens at the last layer and the network."),),
        summary=f"After “{labels_of(seen.tokens)[word]}” the network says “{spelled(chosen)}” ({shares[-1, chosen]:.2f}).",
        provenance={"tokens": labels_of(seen.tokens), "words": [[spelled(int(i)) for i in row] for row in order]},
    )  # fmt: skip


def _normed(network: Network) -> bool:
    return "Norm" in network.layer(stream_layers(network)[-1]).kind


def _finish(network: Network) -> Any:
    """The final norm as a function; nothing for networks that norm inside every block."""
    if _normed(network):
        return network.module.get_submodule(stream_layers(network)[-1])
    return lambda states: states


def _transformed(network: Network, states: Any) -> Any:
    """BERT's head has a layer of its own before the vocabulary; it belongs to what the network says."""
    for name in ("cls.predictions.transform", "lm_head"):
        try:
            part: Any = network.module.get_submodule(name)
        except AttributeError:
            continue
        if name.startswith("cls"):
            return part(states)
        if hasattr(part, "dense") and hasattr(part, "layer_norm"):
            import torch

            return part.layer_norm(torch.nn.functional.gelu(part.dense(states)))
    return states
