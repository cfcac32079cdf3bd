from __future__ import annotations

from typing import Annotated

import numpy as np

from ..errors import NetworkError
from ..lens import lens
from ..sentences import checked_word, labels_of, stream
from ..types import Between, Check, Finding, Input, Network
from ..views import Table


@lens(reads="tokens")
def nearest_words(
    network: Network,
    text: Input,
    *,
    word: int = 1,
    count: Annotated[int, Between(1, 50)] = 6,
    shuffles: Annotated[int, Between(5, 500)] = 50,
    seed: int = 0,
) -> Finding:
    """Which entries of the embedding table lie nearest to one word's vector, layer by layer.

    Numbers: "cosine" ((layers + 1) × count, highest first), "ids" (the entries' numbers), "null" (layers + 1: the 95th
    percentile of the nearest cosine for the same vector with its values shuffled). Above the first layers the vectors
    no longer live where the table does: the null says when a cosine means nothing.

    Options:
        word: which token, from 0 (special tokens count).
        count: how many entries.
        shuffles: how many shuffled vectors make the null.
        seed: of the shuffles.

    Raises UsageError for a token that is not there, NetworkError without an embedding table of that width.

    >>> import neuralmine as nm  # doctest: +SKIP
    >>> print(nm.look("nearest_words", nm.load("minilm"), "The Cat Chases Mice", word=2).text())  # doctest: +SKIP
    """
    seen = stream(network, text)
    word = checked_word(seen.tokens, word)
    table = embedding_table(network)
    lengths = np.linalg.norm(table, axis=1)
    unit = table / np.maximum(lengths, 1e-12)[:, None]
    generator = np.random.default_rng(seed)
    cosines, ids, null = [], [], []
    for vector in seen.states[:, word]:
        direction = vector / max(float(np.linalg.norm(vector)), 1e-12)
        scores = unit @ direction
        best = np.argsort(-scores)[:count]
        cosines.append(scores[best])
        ids.append(best)
        shuffled = np.stack([generator.permutation(direction) for _ in range(shuffles)], 1)
        null.append(np.quantile((unit @ shuffled).max(0), 0.95))
    spelled = network.spell or str
    rows = tuple(
        (
            layer,
            ", ".join(f"{spelled(int(i))} {c:.2f}" for i, c in zip(ids[layer], cosines[layer], strict=True)),
            float(null[layer]),
        )
        for layer in range(len(seen.names))
    )
    name = labels_of(seen.tokens)[word]
    return Finding(
        {"cosine": np.array(cosines), "ids": np.array(ids), "null": np.array(null)},
        (Table(f"nearest entries to {name}", ("layer", "entries and their cosine", "by chance, 95 %"), rows),),
        (
            Check("nearest in the last layer", float(cosines[-1][0]), float(null[-1]), None, bool(cosines[-1][0] > null[-1]),
                  "Cosine of the nearest entry; null: the 95th percentile for the vector with its values shuffled."),
        ),
        summary=f"{name}: nearest at the start {spelled(int(ids[0][0]))} ({cosines[0][0]:.2f}), at the end {spelled(int(ids[-1][0]))} ({cosines[-1][0]:.2f}).",
        provenance={"tokens": labels_of(seen.tokens), "words": [[spelled(int(i)) for i in row] for row in ids]},
    )  # fmt: skip


def embedding_table(network: Network) -> np.ndarray:
    """The table of word vectors, vocabulary × d. Raises NetworkError when there is none."""
    ask = getattr(network.module, "get_input_embeddings", None)
    table = ask() if ask else None
    if table is None or not hasattr(table, "weight"):
        raise NetworkError("This network has no table of word vectors.", "Load it through minilm or hf:NAME-OR-PATH.")
    return table.weight.detach().cpu().numpy()
