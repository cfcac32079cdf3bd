from __future__ import annotations

import numpy as np

from ..lens import lens
from ..sentences import labels_of, stream
from ..types import Check, Finding, Input, Network
from ..views import Table


@lens(reads="tokens")
def sentence_map(network: Network, text: Input) -> Finding:
    """All words at all layers on one map: two axes found once for all of them, never fitted again for a layer.

    Numbers: "places" ((layers + 1) × tokens × 2), "explained" (the share of the variance of each axis), "travelled"
    (tokens: length of each word's way on the map), "straight" (tokens: in all d dimensions, from first to last),
    "centre" (d) and "axes" (2 × d): any further vector's place is (vector − centre) · axes.

    Raises DataError for an empty text or one that is too long, NetworkError for a network that does not read text.

    >>> import neuralmine as nm  # doctest: +SKIP
    >>> nm.look("sentence_map", nm.load("minilm"), "The Cat Chases Mice").numbers["places"].shape  # doctest: +SKIP
    (7, 6, 2)
    """
    seen = stream(network, text)
    states = seen.states.astype(np.float64)
    flat = states.reshape(-1, states.shape[-1])
    _, strengths, axes = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    axes = axes[:2] * np.sign(axes[np.arange(2), np.abs(axes[:2]).argmax(1)])[:, None]
    places = ((flat - flat.mean(0)) @ axes.T).reshape(*states.shape[:-1], 2)
    explained = strengths[:2] ** 2 / (strengths**2).sum()
    travelled = np.linalg.norm(np.diff(places, axis=0), axis=-1).sum(0)
    straight = np.linalg.norm(states[-1] - states[0], axis=-1)
    names = labels_of(seen.tokens)
    rows = tuple((n, *(float(v) for v in (*places[0, i], *places[-1, i], travelled[i]))) for i, n in enumerate(names))
    return Finding(
        {"places": places, "explained": explained, "travelled": travelled, "straight": straight,
         "centre": flat.mean(0), "axes": axes},
        (Table("from the first layer to the last, on the map", ("token", "x at first", "y at first", "x at last", "y at last", "way"), rows),),
        (Check("the map keeps of the variance", float(explained.sum()), 2 / states.shape[-1], None, None,
               "The rest is not on the map: two words close here may be far apart. Null: two directions drawn blindly."),),
        summary=f"Two axes keep {100 * explained.sum():.0f} % of the variance of all words at all layers.",
        provenance={"tokens": names, "special": [t.special for t in seen.tokens], "layers": list(seen.names)},
    )  # fmt: skip
