from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np

from ..errors import NetworkError, UsageError
from ..lens import lens
from ..octaves import (
    Dream,
    Settings,
    at_budget,
    changed,
    distance,
    dreamt,
    eight_bits,
    ladder,
    objective_of,
    scene_of,
    shuffled_change,
    wanted_of,
)
from ..progress import over
from ..tracing import trace
from ..types import Between, Check, Finding, Input, Network
from ..views import Lines, Table

LONGEST = 1024  # pixels of the photo's longer side: everything is measured many times over
ANIMALS = 398  # the first of ImageNet's 1,000 classes are animals
ORDERS = 2000  # random orders of the layers
RINGS, ANGLES = 32, 8


@lens(reads="pixels")
def dream_measures(
    network: Network,
    image: Input,
    *,
    layers: str = "all",
    octaves: Annotated[int, Between(1, 12)] = 3,
    scale: Annotated[float, Between(1.05, 4)] = 1.4,
    steps: Annotated[int, Between(1, 1000)] = 10,
    strength: Annotated[float, Between(0.01, 100)] = 2.0,
    jitter: Annotated[int, Between(0, 512)] = 16,
    budget: Annotated[float, Between(0.001, 0.5)] = 0.1,
    shuffles: Annotated[int, Between(2, 100)] = 5,
    judge: str = "",
    seed: Annotated[int, Between(0, 2**31 - 1)] = 0,
) -> Finding:
    """What dreams of each layer are like in figures: gain, strokes, fineness, distortion, animals, each with its null.

    One dream a layer, its change brought to the same L2 per value (the budget). The null is the same change with its
    pixels in random order. Numbers, each with one row a layer: "objective" (of the photo, of the dream), "shuffled"
    (× shuffles), "frequency" and "dominant" of the change (cycles per pixel: mean by power, and the ring of the
    spectrum with most of it), "spectrum" (× 32 rings from 0 to 0.5, shares), "orientation" (× 8 directions of lines
    from 0° = level, anticlockwise, shares), "oriented" (0 to 1: how far neighbouring slopes share a direction),
    "frequency_shuffled" and "oriented_shuffled" (× shuffles), "distortion" (L2 and 1 − SSIM as the steps leave it,
    1 − SSIM at the budget, L2 and 1 − SSIM at an equal gain), "gain" (the equal one, one number), and where there is a
    judge "animals" (the probability of all animals), "animals_shuffled" (× shuffles), "animals_photo" (one number).

    Options:
        layers: names with commas between them, or "all" for one of each stage of the network.
        octaves: how many sizes, from small to the photo's own.
        scale: how much larger each size is than the one before it.
        steps: steps in each size.
        strength: how far a step moves the picture on average, in 255ths.
        jitter: largest random shift before a step, in pixels.
        budget: L2 of every layer's change per value.
        shuffles: how many random orders of the change's pixels make the null.
        judge: the network that looks for animals, by name: not the dreaming one; empty for lite0 (squeezenet for lite0
            itself), "none" for none.
        seed: of the shifts and the random orders.

    Raises as dream_series does, and UsageError for a judge that is the network itself or has no classes of ImageNet.
    Sources: Mordvintsev, Olah and Tyka (2015), "Inceptionism"; Wang and others (2004), "Image quality assessment: from
    error visibility to structural similarity"; Bigün and Granlund (1987) for orientation by the structure tensor.

    >>> import torch, neuralmine as nm
    >>> net = nm.load(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 4, 3)), shape=(3, 12, 12))
    >>> photo = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    >>> nm.look("dream_measures", net, photo, steps=2, octaves=1, shuffles=2).numbers["shuffled"].shape
    (2, 2)
    """
    names = [layer.name for layer in ladder(network, layers)]
    other, about = _judge(network, judge)
    settings = Settings(octaves, scale, steps, strength, jitter, 512, 0.0, 0.0, seed)
    scene = scene_of(network, image, names, LONGEST)
    made = [
        _measured(dreamt(scene, wanted_of(scene, layer=name), settings), budget, shuffles, seed, other)
        for name in over(names, "layer", until=0.7)
    ]
    numbers: dict[str, np.ndarray] = {key: np.array([one.numbers[key] for one in made]) for key in made[0].numbers}
    gain, equal = _at_equal_gain(made)
    numbers |= {"distortion": np.concatenate([numbers["distortion"], equal], 1), "gain": np.array(gain)}
    if other is not None:
        numbers["animals_photo"] = np.array(animals(other, [eight_bits(scene.photo)])[0])
    checks = [*_form(numbers, shuffles), *_fewer(numbers["distortion"], seed)]
    if other is not None:
        seen, null = numbers["animals"], numbers["animals_shuffled"].mean(0)
        checks.append(
            Check("animals that another network sees", float(seen.mean()), float(null.mean()), (float(null.min()), float(null.max())), bool(seen.mean() > null.max()),
                  f"Mean over the layers of the probability that {other.name} gives to all animals; null: shuffled changes. The photo itself: {float(numbers['animals_photo']):.3g}.")
        )  # fmt: skip
        if numbers["animals_photo"] > 0.5:
            about += " The photo itself is an animal to it already; one without an animal says more."
    return Finding(
        numbers, tuple(_views(names, numbers)), tuple(checks),
        " ".join(part for part in (_said(names, numbers, checks, budget), about, made[0].dream.note) if part),
        provenance={"layers": names, "judge": other.name if other else ""},
    )  # fmt: skip


# ── One layer ──


@dataclass(frozen=True, slots=True, eq=False)
class _Measured:
    dream: Dream  # with its picture at the budget
    numbers: Mapping[str, Any]


def _measured(raw: Dream, budget: float, shuffles: int, seed: int, judge: Network | None) -> _Measured:
    photo, picture = raw.scene.photo, raw.picture.copy()
    at_budget(photo, picture, budget)
    generator = np.random.default_rng([seed, 1])
    mixed = [shuffled_change(photo, picture, generator) for _ in range(shuffles)]
    after = objective_of(raw.scene, picture, raw.wanted)
    spectra = [spectrum(one - photo) for one in (picture, *mixed)]
    numbers: dict[str, Any] = {
        "objective": (raw.before, after),
        "shuffled": [objective_of(raw.scene, one, raw.wanted) for one in mixed],
        "frequency": spectra[0][0], "dominant": spectra[0][1], "spectrum": spectra[0][2], "orientation": spectra[0][3],
        "oriented": oriented(picture - photo),
        "frequency_shuffled": [found[0] for found in spectra[1:]],
        "oriented_shuffled": [oriented(one - photo) for one in mixed],
        "distortion": (distance(photo, raw.picture), 1 - ssim(photo, raw.picture), 1 - ssim(photo, picture)),
    }  # fmt: skip
    if judge is not None:
        found = animals(judge, [eight_bits(one) for one in (picture, *mixed)])
        numbers |= {"animals": found[0], "animals_shuffled": found[1:]}
    return _Measured(replace(raw, picture=picture, after=after), numbers)


def _at_equal_gain(made: list[_Measured]) -> tuple[float, np.ndarray]:
    """The gain that every layer reaches within the budget, and L2 and 1 − SSIM of as much of each change as gives it."""
    gains = [
        one.dream.after / one.dream.before
        for one in made
        if one.dream.before > 0 and one.dream.after > one.dream.before
    ]
    common = min(gains, default=1.0)
    found = []
    for one in over(made, "equal gain, layer"):
        dream, photo = one.dream, one.dream.scene.photo
        low, high = 0.0, 1.0
        if dream.before > 0 and common > 1:
            for _ in range(12):
                middle = (low + high) / 2
                got = objective_of(dream.scene, changed(photo, dream.picture, middle), dream.wanted)
                low, high = (middle, high) if got < common * dream.before else (low, middle)
        part = changed(photo, dream.picture, high if common > 1 else 0.0)
        found.append((distance(photo, part), 1 - ssim(photo, part)))
    return common, np.array(found)


def spectrum(change: np.ndarray) -> tuple[float, float, np.ndarray, np.ndarray]:
    """Mean and strongest frequency of a change (colours × rows × columns), its power by ring, and by direction of lines.

    Power is summed over the colours, of what is left of the mean, under a Hann window; frequencies in cycles per pixel,
    rings to 0.5. Directions are of lines, which lie across their frequency: bin k is about k × 22.5°.

    >>> wave = np.cos(2 * np.pi * 0.25 * np.arange(64))[None, None].repeat(64, 1)
    >>> mean, strongest, rings, lines = spectrum(wave)
    >>> round(mean, 2), round(strongest, 2), int(lines.argmax())
    (0.25, 0.26, 4)
    """
    rows, columns = change.shape[1:]
    window = np.outer(*(0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(n) + 0.5) / n) for n in (rows, columns)))
    flat = (change - change.mean((1, 2), keepdims=True)) * window
    power = np.square(np.abs(np.fft.fft2(flat.astype(np.float64)))).sum(0)
    power[0, 0] = 0
    down, right = np.fft.fftfreq(rows)[:, None], np.fft.fftfreq(columns)[None]
    size = np.hypot(down, right)
    if not power.sum() > 0:
        return 0.0, 0.0, np.zeros(RINGS), np.zeros(ANGLES)
    power /= power.sum()
    which = np.minimum((size * 2 * RINGS).astype(int), RINGS - 1)
    rings = np.bincount(which.ravel(), power.ravel(), RINGS)
    angle = np.degrees(np.arctan2(-down, right)) + 90  # of the lines; rows go down, angles go up
    bins = np.rint(angle / (180 / ANGLES)).astype(int) % ANGLES
    # The corners, finer than any level or upright line can be, would favour the diagonals.
    lines = np.bincount(bins.ravel(), np.where(size <= 0.5, power, 0).ravel(), ANGLES)
    strongest = float((rings.argmax() + 0.5) / (2 * RINGS))
    return float((power * size).sum()), strongest, rings, lines / (lines.sum() or 1.0)


def oriented(change: np.ndarray, sd: float = 4.0) -> float:
    """How far slopes near each other (a Gaussian of that sd) share one direction: 0 not at all, 1 wholly.

    The structure tensor's coherence, summed over the picture by the slopes' strength.

    >>> round(oriented(np.cos(np.arange(64.0))[None, None].repeat(64, 1)), 3)
    1.0
    """
    from scipy.ndimage import gaussian_filter

    grey = change.mean(0, dtype=np.float64)
    down, right = np.gradient(grey, axis=0), np.gradient(grey, axis=1)
    rr, dd, rd = (gaussian_filter(product, sd) for product in (right * right, down * down, right * down))
    total = float((rr + dd).sum())
    return float(np.hypot(rr - dd, 2 * rd).sum()) / total if total > 0 else 0.0


def ssim(one: np.ndarray, other: np.ndarray) -> float:
    """Structural similarity of two pictures (colours × rows × columns, 0..1): 1 for the same.

    Squares of 7 × 7 (smaller in smaller pictures), sample covariances, mean over places and colours: scikit-image's
    `structural_similarity` with its defaults.
    """
    from scipy.ndimage import uniform_filter

    side = min(7, (min(one.shape[1:]) - 1) // 2 * 2 + 1)
    count, edge = side * side, side // 2
    found = []
    for a, b in zip(one.astype(np.float64), other.astype(np.float64), strict=True):
        ma, mb, aa, bb, ab = (uniform_filter(x, side) for x in (a, b, a * a, b * b, a * b))
        sample = count / max(1, count - 1)
        va, vb, vab = sample * (aa - ma * ma), sample * (bb - mb * mb), sample * (ab - ma * mb)
        map_ = (2 * ma * mb + 1e-4) * (2 * vab + 9e-4) / ((ma * ma + mb * mb + 1e-4) * (va + vb + 9e-4))
        found.append(map_[edge : map_.shape[0] - edge, edge : map_.shape[1] - edge].mean())
    return float(np.mean(found))


# ── The judge ──


def _judge(network: Network, name: str) -> tuple[Network | None, str]:
    from ..networks import load
    from ..networks.vision import imagenet_classes

    known = imagenet_classes()
    if tuple(network.labels[:ANIMALS]) != known[:ANIMALS]:
        some = ", ".join(network.labels[:3]) + (", …" if len(network.labels) > 3 else "")
        return None, f"This net never saw animals (its classes: {some}), so its dreams are not searched for any."
    if name == "none":
        return None, ""
    chosen = name or ("squeezenet" if network.name == "lite0" else "lite0")
    if chosen == network.name:
        raise UsageError(f"{chosen} cannot judge its own dreams.", "Name another network.")
    try:
        other = load(chosen)
    except NetworkError as error:
        if name:
            raise
        return None, f"No other network looked for animals: {error.what} {error.hint}"
    if tuple(other.labels) != known:
        raise UsageError(f"{chosen} does not have the 1,000 classes of ImageNet.", "Use lite0 or squeezenet.")
    return other, ""


def animals(judge: Network, pictures: list[np.ndarray]) -> list[float]:
    """The probability a network of ImageNet gives to all its animals together, for pictures of 8 bits."""
    return [float(said.scores[:ANIMALS].sum()) for said in trace(judge, pictures, layers=[], output=True).predictions]


# ── All layers ──


def _form(numbers: Mapping[str, np.ndarray], shuffles: int) -> list[Check]:
    gained, null = numbers["objective"][:, 1], numbers["shuffled"]
    share = float((gained > null.max(1)).mean())
    count, early = len(gained), max(1, len(gained) // 4)
    lines, mixed = numbers["oriented"][:early], numbers["oriented_shuffled"][:early]
    fall, bar = _rank(numbers["frequency"])
    checks = [
        Check("layers that gain more than by shuffled changes", share, 1 / (shuffles + 1), None, share == 1.0,
              f"Share of {count} layers whose objective is higher for the dream than for each of {shuffles} shuffled changes of the same L2; null: what chance alone would give."),
        Check("strokes in the first layers", float(lines.mean()), float(mixed.mean()), (float(mixed.min()), float(mixed.max())), bool((lines > mixed.max(1)).all()),
              f"How far neighbouring slopes of the change share a direction (0 to 1), mean of the first {early}; null: shuffled changes."),
    ]  # fmt: skip
    if count >= 4:
        checks.append(
            Check("frequency falls with depth", fall, bar, None, fall < bar,
                  "Rank correlation of depth and mean frequency of the change; null: the lowest twentieth of random orders of the layers.")
        )  # fmt: skip
    return checks


def _rank(values: np.ndarray) -> tuple[float, float]:
    """Spearman's correlation with the index, and its 5th percentile over random orders."""
    from scipy.stats import rankdata

    count = len(values)
    ranks = rankdata(values) - (count + 1) / 2
    depth = np.arange(count) - (count - 1) / 2
    size = float(np.sqrt((ranks**2).sum() * (depth**2).sum())) or 1.0
    generator = np.random.default_rng(0)
    null = [float(generator.permutation(ranks) @ depth) / size for _ in range(ORDERS)]
    return float(ranks @ depth) / size, float(np.quantile(null, 0.05))


_KINDS = ("as the steps leave it, L2", "as the steps leave it, 1 − SSIM", "at equal budget, 1 − SSIM", "at equal gain, L2", "at equal gain, 1 − SSIM")  # fmt: skip


def _fewer(distortion: np.ndarray, seed: int) -> list[Check]:
    """Is the last quarter of the layers less distorted than the others, for each way of making them comparable?"""
    count = len(distortion)
    if count < 4:
        return []
    late = max(1, count // 4)
    generator = np.random.default_rng([seed, 2])
    orders = [np.arange(count), *(generator.permutation(count) for _ in range(ORDERS))]
    checks = []
    for kind, values in zip(_KINDS, distortion.T, strict=True):
        ratios = [values[o[-late:]].mean() / (values[o[:-late]].mean() or 1.0) for o in orders]
        bar = float(np.quantile(ratios[1:], 0.05))
        checks.append(
            Check(f"fewer distortions in the last layers, {kind}", float(ratios[0]), bar, None, bool(ratios[0] < bar),
                  f"Mean of the last {late} by the mean of the others; below the null, the lowest twentieth of random orders of the layers, it holds.")
        )  # fmt: skip
    return checks


def _said(names: list[str], numbers: Mapping[str, np.ndarray], checks: list[Check], budget: float) -> str:
    objective, null = numbers["objective"], numbers["shuffled"].mean(1)
    times = [after / before if before > 0 else np.nan for before, after in objective]
    chance = [mixed / before if before > 0 else np.nan for (before, _), mixed in zip(objective, null, strict=True)]
    lead = (
        f"At a change of {budget:g} per value the objective grows {np.nanmedian(times):.3g} times (median of {len(names)} layers), by the shuffled change {np.nanmedian(chance):.3g} times."
        if np.isfinite(times).any()
        else "The objective is 0 for the photo in every layer."
    )
    frequency = numbers["frequency"]
    form = f"The change's mean frequency goes from {frequency[0]:.3f} ({names[0]}) to {frequency[-1]:.3f} cycles per pixel ({names[-1]})."
    held = {check.name.rsplit("layers, ", 1)[-1]: check.passed for check in checks if check.name.startswith("fewer")}
    if not held:
        return f"{lead} {form} With fewer than 4 layers it cannot be said whether the last are distorted less."
    by_steps, by_budget, by_gain = (
        held[_KINDS[0]] or held[_KINDS[1]],
        held[_KINDS[2]],
        held[_KINDS[3]] and held[_KINDS[4]],
    )
    if by_budget and by_gain:
        verdict = "holds: at an equal change and at an equal gain, too, the last layers distort less"
    elif by_budget or by_gain:
        one, not_other = ("an equal change", "an equal gain") if by_budget else ("an equal gain", "an equal change")
        verdict = f"holds in part: at {one}, but not at {not_other}"
    elif by_steps:
        verdict = "is the step rule: the steps move the picture less there, and at an equal change or an equal gain the last layers distort no less"
    else:
        verdict = "does not hold here: the last layers distort no less, neither as the steps leave them nor at an equal change or gain"
    return f"{lead} {form} “Far fewer distortions in the final layers” {verdict}."


def _views(names: list[str], numbers: Mapping[str, np.ndarray]) -> list[Any]:
    depth, objective = np.arange(len(names)), numbers["objective"]
    ratio = np.divide(objective[:, 1], objective[:, 0], out=np.ones(len(names)), where=objective[:, 0] > 0)
    mixed = np.divide(numbers["shuffled"].mean(1), objective[:, 0], out=np.ones(len(names)), where=objective[:, 0] > 0)
    distortion = numbers["distortion"]
    views: list[Any] = [
        Lines("how many times the objective grows", depth, {"dream": ratio, "shuffled": mixed}, "layer", "times"),
        Lines("fineness of the change", depth, {"dream": numbers["frequency"], "shuffled": numbers["frequency_shuffled"].mean(1)}, "layer", "cycles per pixel"),
        Lines("strokes: slopes that share a direction", depth, {"dream": numbers["oriented"], "shuffled": numbers["oriented_shuffled"].mean(1)}, "layer", "0 to 1"),
        Lines("distortion", depth, dict(zip(_KINDS, distortion.T, strict=True)), "layer", "L2 per value; 1 − SSIM"),
    ]  # fmt: skip
    columns = ["layer", "times", "shuffled", "cycles per pixel", "strokes", *_KINDS]
    rows = [[name, *map(float, (ratio[i], mixed[i], numbers["frequency"][i], numbers["oriented"][i], *distortion[i]))] for i, name in enumerate(names)]  # fmt: skip
    if "animals" in numbers:
        seen, null = numbers["animals"], numbers["animals_shuffled"].mean(1)
        views.append(Lines("animals that another network sees", depth, {"dream": seen, "shuffled": null, "photo": np.full(len(names), float(numbers["animals_photo"]))}, "layer", "probability"))  # fmt: skip
        columns += ["animals", "animals, shuffled"]
        rows = [[*row, float(seen[i]), float(null[i])] for i, row in enumerate(rows)]
    views.append(Table("layer by layer", tuple(columns), tuple(map(tuple, rows))))
    return views
