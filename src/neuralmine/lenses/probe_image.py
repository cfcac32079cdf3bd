from __future__ import annotations

from typing import Annotated, Literal

import numpy as np

from ..errors import UsageError
from ..lens import lens
from ..tracing import trace
from ..types import Between, Check, Finding, Input, Network
from ..views import Bars, Grid, Lines


@lens()
def probe_image(
    network: Network,
    image: Input,
    *,
    damage: Literal["noise", "blur", "shift", "rotate", "erase", "invert"] = "noise",
    amount: Annotated[float, Between(0, 1)] = 0.3,
    seed: int = 0,
    nulls: Annotated[int, Between(2, 500)] = 20,
) -> Finding:
    """Damage a picture and see at which layer the clean and the damaged one part, and whether the answer holds.

    Numbers: "clean", "damaged" (pictures), "similarity" (cosine between the two, one for each layer), "null"
    (nulls × layers: the same for random changes of equal size), "clean_scores", "damaged_scores".

    Options:
        damage: noise (normal), blur (Gaussian), shift (to the right), rotate, erase (a square in the middle), invert.
        amount: how much, 0 to 1: sd of the noise; blur of up to 2 pixels; shift of up to half the width; up to 90°;
            side of the square; share of the inversion.
        seed: of noise and null.
        nulls: how many random changes of the same size make the null.

    Raises UsageError for an input that is no picture of rows × columns.

    >>> import neuralmine as nm
    >>> finding = nm.look("probe_image", nm.load("digits"), nm.datasets.load("digits").images[0], damage="blur")
    >>> finding.numbers["null"].shape[0]
    20
    """
    clean = np.asarray(image, dtype=np.float64)
    if clean.size == int(np.prod(network.shape)):
        clean = clean.reshape(network.shape)
    if clean.ndim != 2:
        raise UsageError(f"An input of shape {clean.shape} is no picture of rows × columns.", "Give one grey picture.")
    generator = np.random.default_rng(seed)
    damaged = damaged_picture(clean, damage, amount, generator)
    change = float(np.linalg.norm(damaged - clean))
    random = generator.standard_normal((nulls, *clean.shape))
    random *= change / np.maximum(np.linalg.norm(random, axis=(1, 2), keepdims=True), 1e-12)
    seen = trace(network, np.stack([clean, damaged, *(clean + random)]))
    names = [n for n, a in seen.items() if a.value.is_floating_point()]
    similar = np.array([_cosines(seen[name].numpy()) for name in names])
    scores = np.stack([prediction.scores for prediction in network.decode(seen.output)])
    said = [network.labels[int(row.argmax())] for row in scores[:2]]
    kept = float((scores[2:].argmax(1) == scores[0].argmax()).mean())
    null = similar[:, 1:]
    return Finding(
        {
            "clean": clean,
            "damaged": damaged,
            "similarity": similar[:, 0],
            "null": null.T,
            "clean_scores": scores[0],
            "damaged_scores": scores[1],
        },
        (
            Grid("damaged", damaged, "ink", 1.0),
            Lines(
                "how alike the two are, layer by layer",
                np.arange(len(names)),
                {damage: similar[:, 0], "random change of equal size": null.mean(1)},
                "layer",
                "cosine",
            ),
            Bars(
                "what the network says of the damaged one", network.labels, scores[1], int(scores[1].argmax()), "", 1.0
            ),
        ),
        (
            Check(
                "alike in the last layer",
                float(similar[-1, 0]),
                float(null[-1].mean()),
                (float(np.quantile(null[-1], 0.025)), float(np.quantile(null[-1], 0.975))),
                None,
                f"Cosine of clean and {damage} in the last layer; the null changes the picture at random by as much.",
            ),
            Check(
                "the answer holds",
                float(said[0] == said[1]),
                kept,
                None,
                said[0] == said[1],
                f"1 when the damaged picture is still called {said[0]}; the null is the share of random changes for which it is.",
            ),
        ),
        summary=f"Clean: {said[0]}. After {damage} ({amount:g}): {said[1]}. Random changes of the same size keep the answer in {100 * kept:.0f} % of cases.",
        provenance={"layers": names},
    )


def damaged_picture(clean: np.ndarray, damage: str, amount: float, generator: np.random.Generator) -> np.ndarray:
    """The picture after the damage; values stay in 0..1."""
    from scipy import ndimage

    rows, columns = clean.shape
    if damage == "noise":
        return np.clip(clean + generator.normal(0, amount, clean.shape), 0, 1)
    if damage == "blur":
        return ndimage.gaussian_filter(clean, 2 * amount)
    if damage == "shift":
        return np.clip(ndimage.shift(clean, (0, amount * columns / 2), order=1), 0, 1)
    if damage == "rotate":
        return np.clip(ndimage.rotate(clean, 90 * amount, reshape=False, order=1), 0, 1)
    if damage == "invert":
        return (1 - amount) * clean + amount * (1 - clean)
    erased = clean.copy()
    high, wide = round(amount * rows), round(amount * columns)
    top, left = (rows - high) // 2, (columns - wide) // 2
    erased[top : top + high, left : left + wide] = 0
    return erased


def _cosines(values: np.ndarray) -> np.ndarray:
    flat = values.reshape(len(values), -1).astype(np.float64)
    norms = np.linalg.norm(flat, axis=1)
    products = flat[1:] @ flat[0]
    return np.divide(products, norms[1:] * norms[0], out=np.zeros(len(products)), where=norms[1:] * norms[0] > 0)
