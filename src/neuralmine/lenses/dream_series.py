from __future__ import annotations

from typing import Annotated

import numpy as np

from ..lens import lens
from ..moving import thumbnails
from ..octaves import eight_bits, scene_of, series_steps
from ..types import Between, Check, Finding, Input, Network
from ..views import Picture, Table


@lens(reads="pixels")
def dream_series(
    network: Network,
    image: Input,
    *,
    layers: str = "all",
    octaves: Annotated[int, Between(1, 12)] = 3,
    scale: Annotated[float, Between(1.05, 4)] = 1.4,
    steps: Annotated[int, Between(1, 1000)] = 10,
    strength: Annotated[float, Between(0.01, 100)] = 2.0,
    jitter: Annotated[int, Between(0, 512)] = 16,
    smooth: Annotated[float, Between(0, 10)] = 0.0,
    tile: Annotated[int, Between(64, 4096)] = 512,
    budget: Annotated[float, Between(0.001, 0.5)] = 0.1,
    keep: str = "",
    seed: Annotated[int, Between(0, 2**31 - 1)] = 0,
) -> Finding:
    """One dream a layer, in the order of depth, the photo itself last: what each layer emphasises.

    Every dream begins at the photo, takes the same steps, and its change is then multiplied by one factor so that all
    have the same L2 per value (the budget): layers can be compared.
    Numbers: "pictures" (layers + 1 × rows × columns × 3, 8 bits; the last is the photo), "objective" (layers × 2:
    before and after, in full size), "change" (layers: L2 per value, before rounding to 8 bits), "factor" (layers).

    Options:
        layers: names with commas between them, or "all" for one of each stage of the network.
        octaves: how many sizes, from small to the photo's own.
        scale: how much larger each size is than the one before it.
        steps: steps in each size.
        strength: how far a step moves the picture on average, in 255ths.
        jitter: largest random shift before a step, in pixels.
        smooth: blur of each gradient (sd in pixels); 0 for none.
        tile: side of the squares in which large photos are worked on.
        budget: L2 of every layer's change per value.
        keep: a folder where finished layers are written, and read back when the same is asked for again.
        seed: of the shifts.

    Raises UnknownName for a layer that does not exist, UsageError for a photo too small for the network, DataError for
    what is no picture, StoreError for a folder that cannot be written.
    Source: Mordvintsev, Olah and Tyka (2015), "Inceptionism: going deeper into neural networks".

    >>> import torch, neuralmine as nm
    >>> net = nm.load(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 4, 3)), shape=(3, 12, 12))
    >>> photo = np.full((30, 40, 3), 99, dtype=np.uint8)
    >>> seen = nm.look("dream_series", net, photo, steps=1, octaves=1).numbers["pictures"]
    >>> len(seen), bool((seen[-1] == photo).all())
    (3, True)
    """
    settings = {
        "octaves": octaves, "scale": scale, "steps": steps, "strength": strength, "jitter": jitter, "smooth": smooth,
        "tile": tile, "budget": budget, "seed": seed,
    }  # fmt: skip
    done = [r for r in series_steps(network, image, layers=layers, keep=keep, **settings) if r.picture is not None]
    names = done[0].layers
    photo = eight_bits(scene_of(network, image, names).photo)
    pictures = np.stack([*(rung.picture for rung in done if rung.picture is not None), photo])
    objective = np.array([rung.about["objective"] for rung in done])
    change, factor = (np.array([rung.about[name] for rung in done]) for name in ("change", "factor"))
    spread = float(np.ptp(change)) / budget
    rows = tuple(
        (name, *map(float, objective[i]), float(change[i]), float(factor[i]), float(done[i].about["reach"]))
        for i, name in enumerate(names)
    )
    notes = " ".join(dict.fromkeys(rung.about["note"] for rung in done if rung.about["note"]))
    small = thumbnails(list(pictures)).astype(np.float32) / 255
    return Finding(
        {"pictures": pictures, "objective": objective, "change": change, "factor": factor},
        (
            Picture("dreams by depth, the photo last", small, (*names, "the photo")),
            Table("dreams by depth", ("layer", "objective of the photo", "of the dream", "L2 of the change", "factor", "L2 before it"), rows),
        ),
        (
            Check("spread of the change", spread, None, None, spread <= 1e-3,
                  "Largest less smallest L2 per value of the layers' changes, as a share of the budget: at most 0.001."),
            Check("the objective rises", float((objective[:, 1] > objective[:, 0]).mean()), None, None, bool((objective[:, 1] > objective[:, 0]).all()),
                  "Share of the layers whose dream excites them more than the photo. Against shuffled changes: dream_measures."),
        ),
        f"{len(names)} layers from {names[0]} to {names[-1]}, each changed by {budget:g} per value (L2, of 1); the photo is last. {notes}".strip(),
        provenance={"layers": list(names)},
    )  # fmt: skip
