from __future__ import annotations

from typing import Annotated, Literal

import numpy as np

from ..codes import codes_of, picture_for
from ..codes import cosine as alike
from ..lens import lens
from ..progress import over
from ..types import Between, Check, Finding, Input, Network
from ..views import Lines, Picture

_UNITS = {"blur": "sd in pixels", "darkness": "gamma", "noise": "sd"}


@lens(reads="pixels")
def corrupt(
    network: Network,
    image: Input,
    *,
    kind: Literal["blur", "darkness", "noise"] = "blur",
    severity: Annotated[float, Between(0.01, 1)] = 0.5,
    steps: Annotated[int, Between(2, 30)] = 6,
    shuffles: Annotated[int, Between(1, 100)] = 5,
    seed: int = 0,
) -> Finding:
    """Blur, darken or roughen a picture: at which layer do the clean and the damaged one part, or meet again?

    Numbers: "severities" (steps, from 0 on), "amounts" (what they stand for: sd of the blur in pixels, gamma, sd of the
    noise), "pictures" (steps × colours × rows × columns, 0 to 1), "cosine" (steps × layers: between the layer's values
    for the clean and for the damaged picture, all in a row; 1 for two that are the same, 0 where just one is all 0),
    "null" (shuffles × layers: the same for the clean picture with its pixels shuffled), "kept" (steps × layers: the
    cosine's place between the null's mean, 0, and 1; less counts as 0; the cosine itself in layers that shuffling
    leaves alike), "probability"
    (steps: of the class that the network says of the clean picture).
    The two part where "kept" falls most from one layer to the next, and meet where it rises most. It is told by "kept",
    for values that cannot be negative are alike whatever they are.

    Options:
        kind: blur (Gaussian), darkness (each value to the power of gamma) or noise (normal, cut to 0 … 1).
        severity: of the worst picture, 0 to 1; at 1 the sd of the blur is 1/8 of the shorter side, gamma 10, the noise's sd 1.
        steps: how many severities, evenly spaced from 0 on.
        shuffles: how many shuffles of the pixels make the null.
        seed: of noise and shuffles.

    Raises DataError for what is no picture for this network.
    Source: Hendrycks and Dietterich (2019), "Benchmarking neural network robustness to common corruptions".

    >>> import neuralmine as nm
    >>> picture = nm.datasets.load("digits").images[0]
    >>> nm.look("corrupt", nm.load("digits"), picture, kind="noise", steps=4).numbers["cosine"].shape
    (4, 7)
    """
    picture = picture_for(network, image)
    generator = np.random.default_rng(seed)
    noise = generator.standard_normal(picture.shape)
    severities = np.linspace(0, severity, steps)
    pictures = np.stack([damaged(picture, kind, amount, noise) for amount in severities])
    clean, said = codes_of(network, picture)
    names = list(clean)
    cosine, probability = np.zeros((steps, len(names))), np.zeros(steps)
    for step, one in enumerate(over(pictures, "picture", until=0.6)):
        codes, answer = codes_of(network, one)
        cosine[step] = [alike(clean[name], codes[name]) for name in names]
        probability[step] = answer.scores[said.index]
    flat, null = picture.reshape(len(picture), -1), np.zeros((shuffles, len(names)))
    for shuffle in over(range(shuffles), "shuffle"):
        codes, _ = codes_of(network, flat[:, generator.permutation(flat.shape[1])].reshape(picture.shape))
        null[shuffle] = [alike(clean[name], codes[name]) for name in names]
    chance, room = null.mean(0), 1 - null.mean(0)
    kept = np.maximum(np.divide(cosine - chance, room, out=cosine.copy(), where=room > 1e-6), 0)
    amounts = np.array([amount_of(kind, value, picture.shape) for value in severities])
    telling = [name for name, free in zip(names, room, strict=True) if free > 1e-6]
    unit, label, measure = _UNITS[kind], said.label, said.measure
    some = sorted({*range(1, steps, max(1, steps // 5)), steps - 1})
    curves = {f"{kind}, {unit} {amounts[step]:.3g}": cosine[step] for step in some}
    shown = np.repeat(pictures, 3, 1) if len(picture) == 1 else pictures
    sheet = Picture(f"{kind}, {unit}", shown.transpose(0, 2, 3, 1), tuple(f"{amount:.3g}" for amount in amounts))
    bar = float(null[:, -1].max())
    return Finding(
        {
            "severities": severities,
            "amounts": amounts,
            "pictures": pictures,
            "cosine": cosine,
            "null": null,
            "kept": kept,
            "probability": probability,
        },
        (
            *((sheet,) if shown.shape[1] == 3 else ()),
            Lines(
                "how alike clean and damaged are, layer by layer",
                np.arange(len(names)),
                {**curves, "pixels shuffled": chance},
                "layer",
                "cosine",
            ),
            Lines(f"{measure} of {label}", amounts, {label: probability}, f"{kind} ({unit})", measure),
        ),
        (
            Check(
                "alike in the last layer",
                float(cosine[-1, -1]),
                bar,
                None,
                bool(cosine[-1, -1] > bar),
                f"Cosine for the worst picture; null: the highest of {shuffles} shuffles of the clean one's pixels.",
            ),
            Check(
                "the answer holds",
                float(probability[-1]),
                float(probability[0]),
                None,
                None,
                f"{measure.capitalize()} of {label} for the worst picture; beside it that of the clean one.",
            ),
        ),
        summary=f"{kind.capitalize()} up to {unit} {amounts[-1]:.3g}. {_course(kept[-1][room > 1e-6], telling)} In {names[-1]}, the last "
        f"layer, {kept[-1, -1]:.2f} is kept (1: the same, 0: as unlike as shuffled pixels, or more). The {measure} of {label} goes "
        f"from {probability[0]:.3g} to {probability[-1]:.3g}.",
        provenance={"layers": names},
    )


def _course(kept: np.ndarray, names: list[str]) -> str:
    """Where two codes part most and where they meet most, in words."""
    steps = np.diff(kept)
    said = []
    if steps.size and steps.min() < 0:
        at = int(steps.argmin())
        said.append(f"They part most from {names[at]} to {names[at + 1]} (kept {kept[at]:.2f} to {kept[at + 1]:.2f}).")
    if steps.size and steps.max() > 0:
        at = int(steps.argmax())
        said.append(f"They meet most from {names[at]} to {names[at + 1]} (kept {kept[at]:.2f} to {kept[at + 1]:.2f}).")
    return " ".join(said) or "No layer changes how alike they are."


def amount_of(kind: str, severity: float, shape: tuple[int, ...]) -> float:
    """What a severity from 0 to 1 stands for in a picture of that shape: sd in pixels, gamma, or sd.

    >>> [amount_of(kind, 0.5, (3, 32, 64)) for kind in ("blur", "darkness", "noise")]
    [2.0, 5.5, 0.5]
    """
    return {"blur": severity * min(shape[-2:]) / 8, "darkness": 1 + 9 * severity, "noise": severity}[kind]


def damaged(picture: np.ndarray, kind: str, severity: float, noise: np.ndarray) -> np.ndarray:
    """The picture (colours × rows × columns) after the damage, from 0 to 1; `noise` has sd 1.

    >>> damaged(np.array([[[0.5, 1.0]]]), "darkness", 1 / 9, np.zeros((1, 1, 2))).tolist()
    [[[0.25, 1.0]]]
    """
    from scipy import ndimage

    amount = amount_of(kind, severity, picture.shape)
    if severity == 0:
        return picture.copy()
    if kind == "blur":
        return np.clip(ndimage.gaussian_filter(picture, (0, amount, amount)), 0, 1)
    return picture**amount if kind == "darkness" else np.clip(picture + amount * noise, 0, 1)
