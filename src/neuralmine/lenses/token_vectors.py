from __future__ import annotations

import numpy as np

from ..lens import lens
from ..sentences import labels_of, stream
from ..types import Check, Finding, Input, Network
from ..views import Grid, Lines, Table


@lens(reads="tokens")
def token_vectors(network: Network, text: Input) -> Finding:
    """Each word's vector at every layer: its values, its length, and how much the layer changed it.

    Numbers: "vectors" ((layers + 1) × tokens × d, from the embedding on), "norms", "change" (length of the difference
    to the layer before, relative to that layer's vector; 0 for the embedding), "four" (each vector by four numbers:
    one principal component analysis over all layers and tokens together, never fitted again), "explained" (the share
    of the variance that each of the four has).

    Raises DataError for an empty text or one that is too long, NetworkError for a network that does not read text.

    >>> import neuralmine as nm  # doctest: +SKIP
    >>> nm.look("token_vectors", nm.load("minilm"), "The Cat Chases Mice").numbers["norms"].shape  # doctest: +SKIP
    (7, 6)
    """
    seen = stream(network, text)
    states = seen.states.astype(np.float64)
    norms = np.linalg.norm(states, axis=-1)
    moved = np.linalg.norm(np.diff(states, axis=0), axis=-1)
    change = np.concatenate([np.zeros((1, len(seen.tokens))), moved / np.maximum(norms[:-1], 1e-12)])
    four, explained = four_numbers(states)
    names = labels_of(seen.tokens)
    layers = tuple(f"{i} {name}" for i, name in enumerate(seen.names))
    rows = tuple((names[t], *(float(v) for v in four[-1, t]), float(norms[-1, t])) for t in range(len(names)))
    return Finding(
        {"vectors": seen.states, "norms": norms, "change": change, "four": four, "explained": explained},
        (
            Grid("length of each word's vector, layer by layer", norms, "magnitude", None, layers, tuple(names)),
            Table(f"last layer by four numbers ({100 * explained.sum():.0f} % of the variance)", ("token", "1", "2", "3", "4", "length"), rows),
            Lines("how much each layer changes each word", np.arange(len(layers)), {n: change[:, t] for t, n in enumerate(names[:8])}, "layer", "relative change"),
        ),
        (Check("four numbers keep of the variance", float(explained.sum()), 4 / states.shape[-1], None, None,
               "The share that the four-number tables show; the null is what four directions drawn blindly would keep."),),
        summary=f"{len(names)} tokens, {len(layers) - 1} layers, {states.shape[-1]} numbers each.",
        provenance={"tokens": names, "special": [t.special for t in seen.tokens], "layers": list(seen.names)},
    )  # fmt: skip


def four_numbers(states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates on the first four principal axes of all vectors together, and each axis's share of the variance.

    An axis points to where the largest of its coefficients is positive, so that signs do not flip from run to run.
    """
    flat = states.reshape(-1, states.shape[-1])
    centred = flat - flat.mean(0)
    _, strengths, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:4] * np.sign(axes[np.arange(min(4, len(axes))), np.abs(axes[:4]).argmax(1)])[:, None]
    found = (centred @ axes.T).reshape(*states.shape[:-1], -1)
    shares = strengths[:4] ** 2 / max(float((strengths**2).sum()), 1e-30)
    pad = 4 - found.shape[-1]
    return np.pad(found, [(0, 0)] * (found.ndim - 1) + [(0, pad)]), np.pad(shares, (0, pad))
