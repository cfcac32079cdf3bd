from __future__ import annotations

from typing import Annotated, Any

import numpy as np

from ..lens import lens
from ..octaves import (
    Settings,
    distance,
    dreamt,
    ladder,
    objective_of,
    scene_of,
    shown,
    shuffled_change,
    wanted_of,
)
from ..types import Between, Check, Finding, Input, LayerName, Network, Target, Unit
from ..views import Lines, Picture


@lens(reads="pixels")
def dream(
    network: Network,
    image: Input,
    *,
    layer: LayerName = "",
    unit: Unit | None = None,
    target: Target = "",
    guide: str = "",
    octaves: Annotated[int, Between(1, 12)] = 3,
    scale: Annotated[float, Between(1.05, 4)] = 1.4,
    steps: Annotated[int, Between(1, 1000)] = 10,
    strength: Annotated[float, Between(0.01, 100)] = 2.0,
    jitter: Annotated[int, Between(0, 512)] = 16,
    smooth: Annotated[float, Between(0, 10)] = 0.0,
    tile: Annotated[int, Between(64, 4096)] = 512,
    budget: Annotated[float, Between(0, 0.5)] = 0.0,
    shuffles: Annotated[int, Between(0, 100)] = 3,
    seed: Annotated[int, Between(0, 2**31 - 1)] = 0,
) -> Finding:
    """Change a photo so that one layer answers more: a dream of what the layer has learned to see.

    The photo keeps its own size; a network that takes only one size gets it fitted to that (the summary says so).
    Numbers: "picture", "original" and "change" (rows × columns × 3; the first two 0..1), "objective" (before each
    step, in the size of its octave), "before" and "after" (the objective in full size), "shuffled" (the same with the
    change's pixels in random order), "distance" (L2 of the change per value), "factor" (that brought it to the budget).
    The objective is the mean square of the layer's values; of a unit, a class or a guide their mean answer.

    Options:
        layer: what to climb; without one, the deepest stage of the network.
        unit: one unit (map, channel) of the layer, from 0; without one, the whole layer.
        target: a class instead of a layer, by name or number; nothing for none.
        guide: path of a picture (or an array) whose values in the layer the photo's are drawn towards.
        octaves: how many sizes, from small to the photo's own.
        scale: how much larger each size is than the one before it.
        steps: steps in each size.
        strength: how far a step moves the picture on average, in 255ths.
        jitter: largest random shift before a step, in pixels.
        smooth: blur of each gradient (sd in pixels): softer, larger forms; 0 for none.
        tile: side of the squares in which large photos are worked on; smaller takes less memory.
        budget: L2 of the change per value that the dream is brought to, e.g. 0.1; 0 leaves it as the steps made it.
        shuffles: how many random orders of the change's pixels are its null; 0 for none.
        seed: of the shifts and the random orders.

    Raises UnknownName for a layer or class that does not exist, UsageError for a unit that does not, a class together
    with a layer, or a photo too small for the network, DataError for what is no picture.
    Source: Mordvintsev, Olah and Tyka (2015), "Inceptionism: going deeper into neural networks".

    >>> import torch, neuralmine as nm
    >>> net = nm.load(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()), shape=(3, 12, 12))
    >>> nm.look("dream", net, np.full((30, 40, 3), 0.5), steps=2, octaves=2).numbers["picture"].shape
    (30, 40, 3)
    """
    settings = Settings(octaves, scale, steps, strength, jitter, tile, budget, smooth, seed)
    given: Any = guide if not isinstance(guide, str) or guide else None
    asked = layer or ("" if target not in (None, "") else ladder(network)[-1].name)
    scene = scene_of(network, image, [asked])
    wanted = wanted_of(scene, layer=layer, unit=unit, target=target, guide=given)
    made = dreamt(scene, wanted, settings)
    generator = np.random.default_rng([seed, 1])
    null = np.array(
        [
            objective_of(scene, shuffled_change(scene.photo, made.picture, generator), wanted, tile)
            for _ in range(shuffles)
        ]
    )
    moved, gain = distance(scene.photo, made.picture), made.after - made.before
    checks = []
    if shuffles:
        checks.append(
            Check("gain of the objective", gain, float((null - made.before).mean()),
                  (float((null - made.before).min()), float((null - made.before).max())), bool(gain > (null - made.before).max()),
                  f"In full size, {wanted.name}; null: the same change with its pixels in random order, mean and range of {shuffles}.")
        )  # fmt: skip
    photo, picture = shown(scene.photo), shown(made.picture)
    views: list[Any] = [Picture(f"dream of {wanted.name}", picture), Picture("the photo", photo)]
    if len(made.objective):
        views.append(
            Lines("the objective before each step", np.arange(len(made.objective)), {wanted.name: made.objective}, "step", "objective")
        )  # fmt: skip
    times = f" ({made.after / made.before:.3g} times)" if made.before > 0 else ""
    brought = f", brought there by a factor of {made.factor:.3g}" if budget else ""
    return Finding(
        {
            "picture": picture, "original": photo, "change": picture - photo, "objective": made.objective,
            "before": np.array(made.before), "after": np.array(made.after), "shuffled": null,
            "distance": np.array(moved), "factor": np.array(made.factor),
        },
        tuple(views),
        tuple(checks),
        f"The objective of {wanted.name} went from {made.before:.4g} to {made.after:.4g}{times}. Each value of the "
        f"picture moved by {moved:.3f} (L2, of 1){brought}. {made.note}".strip(),
        provenance={"layer": wanted.layer, "objective": wanted.name},
    )  # fmt: skip
