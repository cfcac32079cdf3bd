from __future__ import annotations

import numpy as np

from ..errors import UsageError
from ..lens import lens
from ..sentences import cosines, labels_of, stream
from ..types import Check, Finding, Input, Network
from ..views import Lines


@lens(reads="tokens")
def compare_sentences(network: Network, text: Input, *, other: str, word: str = "") -> Finding:
    """At which layer do two sentences part? One word that stands in both, followed through both.

    Numbers: "similarity" (layers + 1: cosine of the word's two vectors), "step" (layers: how much each layer parts
    them), "null" (layers + 1: mean cosine of the word with the other words of the second sentence: as far apart as
    different words are).

    Options:
        other: the second sentence.
        word: the word to follow, as a token; the last one that stands in both unless given.

    Raises UsageError when no such word stands in both sentences.

    >>> import neuralmine as nm  # doctest: +SKIP
    >>> nm.look("compare_sentences", nm.load("minilm"), "the river bank", other="the money bank").summary  # doctest: +SKIP
    """
    first, second = stream(network, text), stream(network, other)
    here = {token.text: i for i, token in enumerate(first.tokens) if not token.special}
    there = {token.text: i for i, token in enumerate(second.tokens) if not token.special}
    shared = [name for name in here if name in there]
    word = word or (shared[-1] if shared else "")
    if word not in shared:
        raise UsageError(
            f"{word!r} does not stand in both sentences." if word else "No word stands in both sentences.",
            f"Both have: {', '.join(shared)}." if shared else "Give two sentences with a word in common.",
        )
    a, b = first.states[:, here[word]].astype(np.float64), second.states[:, there[word]].astype(np.float64)
    similarity = np.array([cosines(np.stack(pair))[0, 1] for pair in zip(a, b, strict=True)])
    rest = [i for i, t in enumerate(second.tokens) if not t.special and i != there[word]]
    null = np.array([
        np.mean([cosines(np.stack([a[layer], second.states[layer, i].astype(np.float64)]))[0, 1] for i in rest]) if rest else np.nan
        for layer in range(len(a))
    ])  # fmt: skip
    step = -np.diff(similarity)
    parts = int(step.argmax()) + 1
    return Finding(
        {"similarity": similarity, "step": step, **({"null": null} if rest else {})},
        (
            Lines(f"how alike “{word}” is in both", np.arange(len(a)),
                  {word: similarity, **({"different words": null} if rest else {})}, "layer", "cosine", float(parts)),
        ),
        (
            Check("alike in the last layer", float(similarity[-1]), float(null[-1]) if rest else None, None, None,
                  "Cosine of the same word in both sentences; the null is how alike different words are there."),
        ),
        summary=f"“{word}” parts most at layer {parts} (by {step[parts - 1]:.3f}); in the last layer its two vectors have cosine {similarity[-1]:.3f}.",
        provenance={"word": word, "tokens": labels_of(first.tokens), "other_tokens": labels_of(second.tokens), "layers": list(first.names)},
    )  # fmt: skip
