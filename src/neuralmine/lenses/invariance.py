from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np

from ..codes import codes_of, picture_for
from ..codes import cosine as alike
from ..errors import UsageError
from ..lens import lens
from ..progress import over
from ..types import Between, Check, Finding, Input, Network
from ..views import Grid, Lines


@lens(reads="pixels")
def invariance(
    network: Network,
    image: Input,
    *,
    kind: Literal["shift", "scale", "rotation"] = "shift",
    steps: Annotated[int, Between(2, 60)] = 9,
    most: Annotated[float | None, Between(0.05, 10000)] = None,
    shuffles: Annotated[int, Between(1, 100)] = 5,
    seed: int = 0,
) -> Finding:
    """Move, magnify or turn a picture: which layers change, and does the answer hold?

    Numbers: "amounts" (steps; the first leaves the picture as it is), "pictures" (steps × colours × rows × columns,
    0 to 1), "cosine" (layers × steps: between the layer's values, all of them in a row, for the picture and for the
    moved one; 1 for two that are the same, 0 where just one is all 0), "null" (layers × shuffles: the same for the
    picture with its pixels shuffled), "probability" (steps: of the class that the network says of the picture).
    What a move lays bare is filled with the picture's mean colour. A shift is by whole pixels, exact; turning and
    magnifying are about the centre, bilinear. Later layers of a trained network should keep more than early ones.

    Options:
        kind: shift (to the right, in pixels), scale (factor) or rotation (degrees, counter-clockwise).
        steps: how many amounts, evenly spaced; shifts that round to the same pixel are done once.
        most: the largest amount; when not given a quarter of the width, 1.8 times or 90 degrees.
        shuffles: how many shuffles of the pixels make the null.
        seed: of the shuffles.

    Raises UsageError for an amount that does not fit the kind, DataError for what is no picture for this network.
    Source: Zeiler and Fergus (2014), "Visualizing and understanding convolutional networks", Fig. 5.

    >>> import neuralmine as nm
    >>> picture = nm.datasets.load("digits").images[0]
    >>> nm.look("invariance", nm.load("digits"), picture, kind="rotation", steps=4).numbers["cosine"].shape
    (7, 4)
    """
    picture = picture_for(network, image)
    amounts = _amounts(kind, steps, most, picture.shape[-1])
    pictures = np.stack([moved(picture, kind, amount) for amount in amounts])
    clean, said = codes_of(network, picture)
    cosine, probability = np.zeros((len(clean), len(amounts))), np.zeros(len(amounts))
    for step, one in enumerate(over(pictures, "picture", until=0.6)):
        codes, answer = codes_of(network, one)
        cosine[:, step] = [alike(clean[name], codes[name]) for name in clean]
        probability[step] = answer.scores[said.index]
    generator = np.random.default_rng(seed)
    flat, null = picture.reshape(len(picture), -1), np.zeros((len(clean), shuffles))
    for shuffle in over(range(shuffles), "shuffle"):
        shuffled = flat[:, generator.permutation(flat.shape[1])].reshape(picture.shape)
        codes, _ = codes_of(network, shuffled)
        null[:, shuffle] = [alike(clean[name], codes[name]) for name in clean]
    names = list(clean)
    shown = np.unique(np.linspace(0, len(names) - 1, min(len(names), 8)).round().astype(int))
    rows = np.unique(np.linspace(0, len(names) - 1, min(len(names), 24)).round().astype(int))
    least, unit = int(cosine.mean(1).argmin()), {"shift": "pixels", "scale": "times", "rotation": "degrees"}[kind]
    label, measure, chance = said.label, said.measure, float(null[-1].max())
    kept = bool(cosine[-1, -1] > chance)
    return Finding(
        {"amounts": amounts, "pictures": pictures, "cosine": cosine, "null": null, "probability": probability},
        (
            Lines(
                f"how alike the layers find the picture after a {kind}",
                amounts,
                {names[i]: cosine[i] for i in shown},
                f"{kind} ({unit})",
                "cosine",
            ),
            Grid(
                f"cosine by layer (rows) and {kind} (columns, {unit})",
                cosine[rows],
                "signed" if cosine.min() < 0 else "magnitude",
                1.0,
                tuple(names[i] for i in rows),
                tuple(f"{amount:.3g}" for amount in amounts),
            ),
            Lines(f"{measure} of {label}", amounts, {label: probability}, f"{kind} ({unit})", measure),
        ),
        (
            Check(
                "alike in the last layer",
                float(cosine[-1, -1]),
                chance,
                None,
                kept,
                f"Cosine after the largest {kind}; null: the highest of {shuffles} shuffles of the pixels.",
            ),
            Check(
                "the answer holds",
                float(probability[-1]),
                float(probability[0]),
                None,
                None,
                f"{measure.capitalize()} of {label} after the largest {kind}; beside it that of the picture as it is.",
            ),
        ),
        summary=f"{kind.capitalize()} from {amounts[0]:.3g} to {amounts[-1]:.3g} {unit}: {names[least]} changes most (mean "
        f"cosine {cosine[least].mean():.2f}); {names[-1]}, the last, ends at {cosine[-1, -1]:.2f} (pixel-shuffled: "
        f"{null[-1].mean():.2f}). The {measure} of {label} goes from {probability[0]:.3g} to {probability[-1]:.3g}.",
        provenance={"layers": names},
    )


def moved(picture: np.ndarray, kind: str, amount: float) -> np.ndarray:
    """The picture (colours × rows × columns) after a shift, a scaling or a turn; bare places get its mean colour.

    >>> moved(np.array([[[0.0, 0.25, 0.5, 1.0]]]), "shift", 1).tolist()
    [[[0.4375, 0.0, 0.25, 0.5]]]
    """
    from scipy import ndimage

    if amount == (1 if kind == "scale" else 0):
        return picture.copy()
    means = picture.mean((1, 2))
    if kind == "shift":
        by, new = int(amount), np.broadcast_to(means[:, None, None], picture.shape).copy()
        new[:, :, by:] = picture[:, :, :-by]
        return new
    turn = np.radians(amount)
    matrix = (
        np.eye(2) / amount
        if kind == "scale"
        else np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    )
    centre = (np.array(picture.shape[1:]) - 1) / 2
    offset: Any = centre - matrix @ centre
    planes = [
        ndimage.affine_transform(plane, matrix, offset, order=1, mode="grid-constant", cval=mean)
        for plane, mean in zip(picture, means, strict=True)
    ]
    return np.clip(np.stack(planes), 0, 1)


def _amounts(kind: str, steps: int, most: float | None, width: int) -> np.ndarray:
    first = 1.0 if kind == "scale" else 0.0
    last = most if most is not None else {"shift": max(1, width // 4), "scale": 1.8, "rotation": 90}[kind]
    if kind == "shift" and (last != int(last) or not 1 <= last < width):
        raise UsageError(
            f"A picture {width} pixels wide cannot be shifted by up to {last:g} pixels.",
            f"Give whole pixels, most=1 to {width - 1}.",
        )
    if kind == "scale" and (last == 1 or last > 20):
        raise UsageError(f"A scale of {last:g} shows nothing.", "Give most=0.05 to 20, but not 1.")
    if kind == "rotation" and last > 360:
        raise UsageError(f"A turn by {last:g} degrees is more than a whole one.", "Give most=360 or less.")
    amounts = np.linspace(first, last, steps)
    return np.unique(amounts.round()) if kind == "shift" else amounts
