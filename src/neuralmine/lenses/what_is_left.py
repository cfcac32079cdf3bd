from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..lens import lens
from ..sentences import labels_of, stream
from ..tracing import trace
from ..types import Check, Finding, Input, Network
from ..views import Grid, Lines

if TYPE_CHECKING:
    import torch


@lens(reads="tokens")
def what_is_left(network: Network, text: Input) -> Finding:
    """Does a word vanish on its way? Each word's length by layer, and what changes when it is taken out of the text.

    Numbers: "norms" ((layers + 1) × tokens), "share" (norms relative to the mean of the layer), "effect"
    ((layers + 1) × tokens: take the word's embedding away, set it to 0 at the first layer; how far, relative to their
    length, do all the other words' vectors move, on average). Nothing is clamped: 0 means 0.

    Raises DataError for an empty text or one that is too long, NetworkError for a network that does not read text.

    >>> import neuralmine as nm  # doctest: +SKIP
    >>> nm.look("what_is_left", nm.load("minilm"), "The Cat Chases Mice").numbers["effect"].shape  # doctest: +SKIP
    (7, 6)
    """
    seen = stream(network, text)
    names = labels_of(seen.tokens)
    states = seen.states.astype(np.float64)
    norms = np.linalg.norm(states, axis=-1)
    effect = np.zeros(norms.shape)
    for word in range(len(names)):
        ablated = trace(network, text, layers=list(seen.names), edits={seen.names[0]: partial(_without, word=word)})
        moved = np.stack([ablated[name].numpy()[0] for name in seen.names]) - states
        others = [i for i in range(len(names)) if i != word]
        if others:
            effect[:, word] = (np.linalg.norm(moved[:, others], axis=-1) / np.maximum(norms[:, others], 1e-12)).mean(1)
    share = norms / np.maximum(norms.mean(1, keepdims=True), 1e-12)
    smallest = int(norms[-1].argmin())
    layers = np.arange(len(seen.names))
    plain = [i for i, token in enumerate(seen.tokens) if not token.special][:8]
    return Finding(
        {"norms": norms, "share": share, "effect": effect},
        (
            Lines("how long each word's vector is", layers, {names[i]: norms[:, i] for i in plain}, "layer", "length"),
            Grid("what taking a word away (column) changes in the others, layer by layer", effect, "magnitude", None,
                 tuple(str(layer) for layer in layers), tuple(names)),
        ),
        (
            Check("the shortest vector in the last layer", float(norms[-1, smallest]), float(norms[-1].mean()), None, None,
                  f"{names[smallest]}; the other figure is the mean over all words. Zeroed out would be 0."),
        ),
        summary=f"In the last layer the shortest is “{names[smallest]}” with {norms[-1, smallest]:.3g} of a mean of {norms[-1].mean():.3g}: "
        + ("it is zeroed out." if norms[-1, smallest] < 1e-6 else "no word is zeroed out."),
        provenance={"tokens": names, "special": [t.special for t in seen.tokens], "layers": list(seen.names)},
    )  # fmt: skip


def _without(embedded: torch.Tensor, word: int) -> torch.Tensor:
    changed = embedded.clone()
    changed[:, word] = 0
    return changed
