"""One dream after the other, kept so that a series goes on where it was left."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import NeuralmineError
from ..lens import array_hash, weights_hash
from ..moving import notes_of, write_picture
from ..pictures import opened
from ..types import Network
from .changes import distance, eight_bits
from .climbing import Frame, Settings, climb, finished, known
from .rungs import ladder
from .scenes import scene_of, wanted_of


@dataclass(frozen=True, slots=True, eq=False)
class Rung:
    """How a series stands: a frame of the layer that is dreamt, or, when the layer is done, its picture of 8 bits."""

    index: int
    layers: tuple[str, ...]
    frame: Frame | None = None
    picture: np.ndarray | None = None  # rows × columns × 3
    about: Mapping[str, Any] = field(default_factory=dict)  # settings, objective before and after, factor, note
    read: bool = False  # from the folder: it was dreamt before

    @property
    def layer(self) -> str:
        return self.layers[self.index]


def series_steps(
    network: Network, image: Any, *, layers: str | Sequence[str] = "all", keep: str | Path = "", **settings: Any
) -> Generator[Rung, None, None]:
    """One dream a layer in depth order; each begins at the photo. Yields a Rung a step, and one with each picture.

    `keep` is a folder: a finished layer is written there at once (NN-LAYER.png, with all that made it in its text), and
    read back when the very same is asked for again. Raises as `dreaming_steps`, and StoreError for the folder.
    """
    chosen = Settings(**known(settings))
    rungs = ladder(network, layers)
    names = tuple(layer.name for layer in rungs)
    scene = scene_of(network, image, names)
    same = {
        "network": network.name, "weights": weights_hash(network), "photo": array_hash(scene.photo), **asdict(chosen)
    }  # fmt: skip
    for index, name in enumerate(names):
        key = hashlib.sha256(json.dumps({**same, "layer": name}, sort_keys=True).encode()).hexdigest()[:16]
        path = Path(keep) / f"{index + 1:02d}-{name.replace('/', '_')}.png" if keep else None
        kept = _kept(path, key)
        if kept:
            yield Rung(index, names, picture=kept[0], about=kept[1], read=True)
            continue
        wanted, objective, seen, frame = wanted_of(scene, layer=name), [], [], None
        for frame in climb(scene, wanted, chosen):
            if not frame.last:
                seen += frame.trouble
                if math.isfinite(frame.objective):
                    objective.append(frame.objective)
                yield Rung(index, names, frame)
        assert frame is not None
        one = finished(scene, wanted, chosen, frame, np.array(objective), seen)
        picture = eight_bits(one.picture)
        about = {
            **same, "layer": name, "key": key, "objective": [one.before, one.after], "factor": one.factor,
            "change": distance(scene.photo, one.picture), "reach": one.reach, "note": one.note,
        }  # fmt: skip
        del one, frame
        if path is not None:
            write_picture(picture, path, about)
        yield Rung(index, names, picture=picture, about=about)


def _kept(path: Path | None, key: str) -> tuple[np.ndarray, Mapping[str, Any]] | None:
    if path is None or not path.is_file():
        return None
    try:
        about = notes_of(path)
        return (np.array(opened(path)), about) if about.get("key") == key else None
    except (NeuralmineError, OSError, ValueError):
        return None  # broken, or another's: dreamt again
