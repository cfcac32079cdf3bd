from __future__ import annotations

from typing import Annotated

import numpy as np

from ..attribution import as_maps, picture_of
from ..errors import UsageError
from ..lens import lens
from ..tracing import trace
from ..types import Between, Check, Finding, Input, Network
from ..views import Grid, Picture, Table


@lens(reads="pixels")
def feature_maps(
    network: Network, image: Input, *, layers: str = "", count: Annotated[int, Between(1, 4096)] = 4
) -> Finding:
    """What each layer makes of the picture: its strongest maps, exactly as the layer put them out.

    Numbers, for the k-th layer: "maps k" (maps × rows × columns, those with the highest value first), "units k" (which
    they are), "peaks k" (the highest value of every map of the layer). Patches of vision transformers count as places.

    Options:
        layers: names with commas between them; when empty, all with rows and columns.
        count: how many maps of each.

    Raises UnknownName for a layer that does not exist, UsageError for one without rows and columns.

    >>> import torch, neuralmine as nm
    >>> net = nm.load(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()), shape=(3, 12, 12))
    >>> nm.look("feature_maps", net, np.full((3, 12, 12), 0.5), count=2).numbers["maps 1"].shape
    (2, 10, 10)
    """
    asked = [name.strip() for name in layers.split(",") if name.strip()]
    names = [network.layer(name).name for name in asked] or [
        layer.name
        for layer in network.layers
        if layer.dims == "b c h w" or (layer.dims == "b t d" and _square(layer.shape[1]))
    ]
    if not names:
        raise UsageError("No layer of this network has rows and columns.", "Look at its activations instead.")
    encoded = network.encode(image)[:1]
    seen = trace(network, encoded, layers=names)
    numbers: dict[str, np.ndarray] = {}
    about, rows = [], []
    silent = 0
    for k, name in enumerate(names):
        maps = as_maps(seen[name].value)[0].detach().cpu().numpy()
        peaks = maps.reshape(len(maps), -1).max(1)
        units = np.argsort(-peaks, kind="stable")[:count]
        dead = int((np.ptp(maps.reshape(len(maps), -1), axis=1) == 0).sum())
        silent += dead
        numbers |= {f"maps {k}": maps[units], f"units {k}": units, f"peaks {k}": peaks}
        about.append({"name": name, "kind": network.layer(name).kind, "shape": list(maps.shape), "flat": dead})
        rows.append(
            (
                name,
                network.layer(name).kind,
                "{} × {} × {}".format(*maps.shape),
                int(units[0]),
                float(peaks[units[0]]),
                dead,
            )
        )
    last = len(names) - 1
    views = [
        Table("layers and their strongest maps", ("layer", "kind", "maps × rows × columns", "strongest map", "its peak", "maps without a difference"), tuple(rows)),
        *(Grid(f"{names[last]}, map {unit}", found, "signed") for unit, found in zip(numbers[f"units {last}"][:4], numbers[f"maps {last}"], strict=False)),
    ]  # fmt: skip
    return Finding(
        numbers,
        (Picture("as the network was shown it", picture_of(network, encoded)), *views),
        (Check("maps that say nothing of this picture", float(silent), None, None, None,
               "Maps with the same value everywhere: off for this picture, or dead."),),
        f"{len(names)} layers; the last, {names[last]}, has {rows[last][2]} values.",
        provenance={"layers": about},
    )  # fmt: skip


def _square(count: int) -> bool:
    return any(count - more > 1 and float(np.sqrt(count - more)).is_integer() for more in (0, 1, 2))
