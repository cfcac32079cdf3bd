from __future__ import annotations

from typing import Annotated

import numpy as np

from ..dense import weighted_sums
from ..lens import lens
from ..losses import chosen
from ..types import Between, Check, Dataset, Finding, Network
from ..views import Grid


@lens()
def decision_map(
    network: Network,
    data: Dataset,
    *,
    points: Annotated[int, Between(3, 201)] = 41,
    margin: Annotated[float, Between(0, 5)] = 0.25,
) -> Finding:
    """What every neuron says at every place of a plane: its own decision map, all layers in one pass over a grid.

    For a network of two inputs the plane is what goes in. For others it is the one through the data's mean along its
    first two principal directions, and a place off the plane is drawn where it falls straight down on it.

    Numbers: for each block of neurons its activations, named by its address, neurons × places down × places across
    (the first row is the highest); "across" and "down", the places' coordinates; "said", the class at each place;
    "examples" (n × 2), where the data lie, and "said_of" them; "centre" and "axes" (2 × inputs) of the plane;
    "explained", the share of the data's variance that lies in it. The check compares what the map says at the
    place nearest to each example with what the network says of the example itself.

    Options:
        points: places along each side of the grid.
        margin: room around the data, as a share of their extent.

    Raises NetworkError for a network without weighted sums, DataError for data that do not fit it.

    >>> import neuralmine as nm
    >>> net = nm.load("64-16-10")
    >>> nm.look("decision_map", net, nm.datasets.load("digits"), points=9).numbers["hidden1"].shape
    (16, 9, 9)
    """
    rows = network.encode(data.images).detach().cpu().double().numpy().reshape(len(data), -1)
    centre, axes = _plane(rows)
    examples = (rows - centre) @ axes.T
    spread = float(((rows - rows.mean(0)) ** 2).sum())
    inside = float(((examples - examples.mean(0)) ** 2).sum())
    low, high = examples.min(0), examples.max(0)
    room = margin * np.maximum(high - low, 1e-6)
    across = np.linspace(low[0] - room[0], high[0] + room[0], points)
    down = np.linspace(high[1] + room[1], low[1] - room[1], points)
    places = np.stack(np.meshgrid(across, down), -1).reshape(-1, 2) @ axes + centre
    maps, said = maps_at(network, places, (points, points))
    said_of = chosen(network.module(network.encode(data.images))).cpu().numpy()
    column = np.abs(across - examples[:, :1]).argmin(1)
    row = np.abs(down - examples[:, 1:]).argmin(1)
    right = float((said[row, column] == said_of).mean())
    classes = np.arange(max(said.max(), said_of.max()) + 1)
    chance = float(sum((said[row, column] == k).mean() * (said_of == k).mean() for k in classes))
    plane = "what goes in" if len(axes[0]) == 2 else "the data's first two principal directions"
    explained = inside / spread if spread else 1.0
    return Finding(
        {
            **maps, "across": across, "down": down, "said": said, "examples": examples, "said_of": said_of,
            "centre": centre, "axes": axes, "explained": np.array(explained),
        },
        (Grid("class at each place", said.astype(float), "magnitude", float(max(1, classes[-1]))), *_grids(maps)),
        (
            Check("the map says of the examples what the network says", right, chance, None, bool(right > chance),
                  f"Share of {len(data)} examples; the null is the agreement that shuffled examples would have. What is missing lies "
                  "between two places of the grid, or off the plane."),
        ),
        f"{sum(len(m) for m in maps.values())} neurons at {points} × {points} places; the plane is {plane}, with "
        f"{100 * explained:.3g} % of the data's variance. The map is right about the network's own answer for {100 * right:.1f} % of the examples.",
        provenance={"plane": plane},
    )  # fmt: skip


def maps_at(network: Network, places: np.ndarray, shape: tuple[int, int]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Each block's activations at these places (in the units the module takes), neurons × shape; and the class said.

    >>> import neuralmine as nm
    >>> maps, said = maps_at(nm.load("64-10"), np.zeros((6, 64)), (2, 3))
    >>> maps["output"].shape, said.shape
    ((10, 2, 3), (2, 3))
    """
    import torch

    like = next(network.module.parameters())
    given = torch.as_tensor(places, dtype=like.dtype, device=like.device).reshape(-1, *network.shape)
    sums, _, output = weighted_sums(network, given)
    maps = {w.block: w.activations.detach().cpu().numpy().T.reshape(-1, *shape) for w in sums}
    return maps, chosen(output).cpu().numpy().reshape(shape)


def _plane(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if rows.shape[1] == 2:
        return np.zeros(2), np.eye(2)
    centre = rows.mean(0)
    _, _, directions = np.linalg.svd(rows - centre, full_matrices=False)
    # A direction has no sign of its own: its largest entry is made positive, so that the same data give the same map.
    axes = directions[:2]
    return centre, axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])[:, None]


def _grids(maps: dict[str, np.ndarray], most: int = 12) -> tuple[Grid, ...]:
    """The neurons of small layers, each layer on one scale."""
    made = []
    for name, layer in maps.items():
        if len(layer) > most:
            continue
        limit, scale = float(np.abs(layer).max()) or 1.0, "signed" if layer.min() < 0 else "magnitude"
        made += [Grid(f"{name} {unit}", values, scale, limit) for unit, values in enumerate(layer)]
    return tuple(made)
