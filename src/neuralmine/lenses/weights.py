from __future__ import annotations

import numpy as np

from ..dense import picture, sum_of, weighted_sums
from ..lens import lens
from ..types import LAST, Finding, LayerName, Network
from ..views import Grid


@lens(on="b d")
def weights(network: Network, *, layer: LayerName = LAST, limit: float = 0.0) -> Finding:
    """One layer's weights as signed grids, one a neuron: green adds, red takes away.

    Numbers: "weight" (neurons × inputs), "bias" (neurons; absent without bias), "grids" (neurons × rows × columns,
    in the shape of what the weights multiply). The colour limit is the layer's largest magnitude, the same for all
    its neurons, unless given.

    Options:
        layer: a layer with weighted sums.
        limit: the value of the brightest colour; 0 for the largest weight of the layer.

    Raises UsageError for a layer without weighted sums.

    >>> import neuralmine as nm
    >>> nm.look("weights", nm.load("digits"), layer="hidden1").numbers["grids"].shape
    (16, 8, 8)
    """
    sums, _, _ = weighted_sums(network, np.zeros(network.shape))
    weighted = sum_of(sums, layer)
    weight = weighted.linear.weight.detach().cpu().numpy().copy()
    grids = np.stack([picture(weighted, row) for row in weight])
    numbers = {"weight": weight, "grids": grids}
    if weighted.linear.bias is not None:
        numbers["bias"] = weighted.linear.bias.detach().cpu().numpy().copy()
    bright = limit or float(np.abs(weight).max(initial=0)) or 1.0
    views = tuple(Grid(f"{weighted.block} {unit}", grid, "signed", bright) for unit, grid in enumerate(grids[:64]))
    shown = "" if len(grids) <= 64 else " The first 64 are drawn; all are in the numbers."
    return Finding(
        numbers,
        views,
        summary=f"{weighted.block}: {len(weight)} neurons with {weight.shape[1]} weights each, largest magnitude {bright:.3g}.{shown}",
        provenance={"from": weighted.source, "block": weighted.block},
    )
