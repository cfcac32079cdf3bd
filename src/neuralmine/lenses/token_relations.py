from __future__ import annotations

from functools import lru_cache
from typing import Annotated

import numpy as np

from ..lens import lens, weights_hash
from ..sentences import cosines, labels_of, random_sentences, stream
from ..types import Between, Check, Finding, Input, Network
from ..views import Grid, Lines


@lens(reads="tokens")
def token_relations(
    network: Network, text: Input, *, nulls: Annotated[int, Between(2, 200)] = 20, seed: int = 0
) -> Finding:
    """How alike every two words are at every layer, and how alike words of meaningless sentences are.

    Numbers: "cosine" ((layers + 1) × tokens × tokens), "centred" (the same after the common direction of the layer,
    the mean over the meaningless sentences, is taken away: most of a raw cosine is shared by all words), "null"
    ((layers + 1) × 3: 5th, 50th and 95th percentile of the raw cosine of two different words of meaningless
    sentences), "null_centred".

    Options:
        nulls: how many sentences of eight words drawn at random make the null.
        seed: of those sentences.

    Raises DataError for an empty text or one that is too long, NetworkError for a network that does not read text.

    >>> import neuralmine as nm  # doctest: +SKIP
    >>> finding = nm.look("token_relations", nm.load("minilm"), "The Cat Chases Mice")  # doctest: +SKIP
    """
    seen = stream(network, text)
    names = labels_of(seen.tokens)
    plain = [i for i, token in enumerate(seen.tokens) if not token.special]
    null, null_centred, common = _by_chance(network, weights_hash(network), nulls, seed)
    states = seen.states.astype(np.float64)
    raw, centred = cosines(states), cosines(states - common)
    a, b, best = _strongest(centred[-1], plain)
    pairs = [(i, j) for k, i in enumerate(plain) for j in plain[k + 1 :]][:6]
    layers = np.arange(len(seen.names))
    last = float(centred[-1, a, b]) if best else 0.0
    return Finding(
        {"cosine": raw, "centred": centred, "null": null, "null_centred": null_centred},
        (
            Grid("cosine of every two words, last layer, common direction taken away", centred[-1], "signed", 1.0, tuple(names), tuple(names)),
            Lines("two words, layer by layer (raw cosine)", layers,
                  {**{f"{names[i]}–{names[j]}": raw[:, i, j] for i, j in pairs}, "by chance, 95 %": null[:, 2]}, "layer", "cosine"),
        ),
        (
            Check(f"most alike: {names[a]} and {names[b]}", last, float(null_centred[-1, 2]),
                  (float(null_centred[-1, 0]), float(null_centred[-1, 2])), bool(last > null_centred[-1, 2]),
                  "Cosine in the last layer, common direction taken away; null: 95th percentile of words of meaningless sentences."),
        ) if best else (),
        summary=(
            f"Raw cosines of unrelated words lie from {null[-1, 0]:.2f} to {null[-1, 2]:.2f} in the last layer; "
            + (f"{names[a]} and {names[b]} are the most alike ({raw[-1, a, b]:.2f} raw, {last:.2f} centred)." if best else "one word has no pair.")
        ),
        provenance={"tokens": names, "special": [t.special for t in seen.tokens], "layers": list(seen.names)},
    )  # fmt: skip


@lru_cache(maxsize=32)
def _by_chance(network: Network, weights: str, nulls: int, seed: int) -> tuple[np.ndarray, ...]:
    """Percentiles of raw and centred cosines of meaningless sentences, and their common direction. The same for every
    sentence, so kept: `weights` is there to notice when the network has changed."""
    others = [stream(network, sentence) for sentence in random_sentences(nulls, 8, seed)]
    words = [o.states[:, [i for i, t in enumerate(o.tokens) if not t.special]].astype(np.float64) for o in others]
    common = np.concatenate(words, axis=1).mean(1, keepdims=True)
    return _spread(words, 0 * common), _spread(words, common), common


def _spread(words: list[np.ndarray], common: np.ndarray) -> np.ndarray:
    """Percentiles (5, 50, 95) of the cosine of two different words, for each layer."""
    values = []
    for sentence in words:
        count = sentence.shape[1]
        values.append(cosines(sentence - common)[:, ~np.eye(count, dtype=bool)])
    return np.quantile(np.concatenate(values, axis=1), [0.05, 0.5, 0.95], axis=1).T


def _strongest(matrix: np.ndarray, plain: list[int]) -> tuple[int, int, bool]:
    pairs = [(matrix[i, j], i, j) for k, i in enumerate(plain) for j in plain[k + 1 :]]
    if not pairs:
        return 0, 0, False
    _, i, j = max(pairs)
    return i, j, True
