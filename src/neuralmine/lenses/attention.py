from __future__ import annotations

from typing import Annotated

import numpy as np

from ..lens import lens
from ..sentences import labels_of, stream
from ..types import Between, Check, Finding, Input, Network
from ..views import Grid, Table

ROLES = ("previous token", "next token", "same token", "first token")


@lens(reads="tokens")
def attention(network: Network, text: Input, *, nulls: Annotated[int, Between(5, 200)] = 20, seed: int = 0) -> Finding:
    """Where every head of every layer looks, and the heads with a plain role: previous, next, same or first token.

    Numbers: "weights" (layers × heads × queries × keys; each row adds up to 1), "roles" (layers × heads × 4: the mean
    weight on the previous, next, same and first token), "null" (4: for each role the 95th percentile over all heads
    when keys are shuffled). A role is only named where it beats the best of all heads on shuffled keys.

    Options:
        nulls: how many shuffles make the null.
        seed: of the shuffles.

    Raises NetworkError for a network whose attention cannot be seen.
    Source: Clark, Khandelwal, Levy and Manning (2019), "What does BERT look at?".

    >>> import neuralmine as nm  # doctest: +SKIP
    >>> nm.look("attention", nm.load("minilm"), "The Cat Chases Mice").numbers["weights"].shape  # doctest: +SKIP
    (6, 12, 6, 6)
    """
    seen = stream(network, text, attention=True)
    weights = np.stack(list(seen.attention.values())).astype(np.float64)
    names = labels_of(seen.tokens)
    roles = role_scores(weights)
    generator = np.random.default_rng(seed)
    shuffled = np.stack([role_scores(weights[..., generator.permutation(len(names))]) for _ in range(nulls)])
    # There are many heads: the null is what the best of all of them reaches, not a typical one.
    bar = np.quantile(shuffled.max((1, 2)), 0.95, axis=0)
    found = sorted(
        ((float(roles[block, h, r]), block, h, r) for block, h, r in np.argwhere(roles > np.maximum(bar, 0.5))),
        reverse=True,
    )
    layer, head = (found[0][1], found[0][2]) if found else (0, 0)
    rows = tuple((f"layer {block + 1}, head {h}", ROLES[r], score, float(bar[r])) for score, block, h, r in found[:24])
    gap = float(np.abs(weights.sum(-1) - 1).max())
    return Finding(
        {"weights": weights, "roles": roles, "null": bar},
        (
            Grid(f"layer {layer + 1}, head {head}: who (row) looks at whom (column)", weights[layer, head], "magnitude", 1.0, tuple(names), tuple(names)),
            Table("heads with a role", ("head", "role", "mean weight", "best of all heads by chance"), rows),
        ),
        (
            Check("each row adds up to 1", gap, None, None, gap < 1e-5, "Largest difference over all heads and words."),
            Check("heads with a role", float(len(found)), 0.0, None, None, "More weight on that place than any head on shuffled keys, and at least half."),
        ),
        summary=f"{weights.shape[0]} layers of {weights.shape[1]} heads; {len(found)} have a plain role on this sentence.",
        provenance={"tokens": names, "special": [t.special for t in seen.tokens], "layers": list(seen.attention)},
    )  # fmt: skip


def role_scores(weights: np.ndarray) -> np.ndarray:
    """Mean weight on the previous, next, same and first token, for each layer and head."""
    count = weights.shape[-1]
    places = np.arange(count)
    scores = [
        weights[..., places[1:], places[:-1]].mean(-1) if count > 1 else np.zeros(weights.shape[:2]),
        weights[..., places[:-1], places[1:]].mean(-1) if count > 1 else np.zeros(weights.shape[:2]),
        weights[..., places, places].mean(-1),
        weights[..., 1:, 0].mean(-1) if count > 1 else np.zeros(weights.shape[:2]),
    ]
    return np.stack(scores, -1)
