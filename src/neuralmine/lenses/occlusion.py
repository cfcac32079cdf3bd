from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np

from ..attribution import asked_about, encoded_colour, explained, last_spatial, scores_of
from ..errors import NetworkError, UsageError
from ..lens import lens
from ..progress import over
from ..tracing import trace
from ..types import PREDICTED, Between, Finding, Input, Network, Target, Trace
from ..views import Overlay

if TYPE_CHECKING:
    import torch


@lens(reads="pixels")
def occlusion(
    network: Network,
    image: Input,
    *,
    target: Target = PREDICTED,
    window: Annotated[int, Between(0, 100000)] = 0,
    stride: Annotated[int, Between(0, 100000)] = 0,
    colour: Literal["mean", "black", "grey", "white"] = "mean",
    layer: str = "",
    batch: Annotated[int, Between(1, 1024)] = 8,
    evidence: bool = True,
    seed: int = 0,
) -> Finding:
    """What happens to the class when a square is moved over the picture: the paper's three maps.

    Numbers: "map" (rows × columns of the picture: how far the score falls, mean of all squares that cover a pixel),
    and for each place of the square: "probability" of the class, "activity" (the sum of the layer's map that is
    strongest on the whole picture), "predicted" (the class that is said), "score". The picture's edge cuts off what
    hangs over of the last squares.

    Options:
        target: the class, by name or number; without one, what the network says.
        window: the square's side in pixels; 0 for a sixth of the picture.
        stride: how far it moves; 0 for half of its side.
        colour: what it shows: the mean colour (0 as the network takes it), black, grey or white.
        layer: whose strongest map is watched; without one, the last with maps that have a place.
        batch: how many squares go through the network at a time.
        evidence: also measure whether the map depends on the weights and beats random orders.
        seed: of the shuffled weights and the random orders.

    Raises UsageError for a square larger than the picture, UnknownName for a class or layer that does not exist.
    Source: Zeiler and Fergus (2014), "Visualizing and understanding convolutional networks", figure 7.

    >>> import neuralmine as nm
    >>> digit = nm.datasets.load("digits").images[201]
    >>> found = nm.look("occlusion", nm.load("digits"), digit, target="5", window=2, stride=2, evidence=False)
    >>> found.numbers["probability"].shape
    (4, 4)
    """
    import torch

    watched = _watched(network, layer)
    encoded = network.encode(image)[:1]
    rows, columns = encoded.shape[-2:]
    window = window or max(1, round(min(rows, columns) / 6))
    stride = stride or max(1, window // 2)
    if window > min(rows, columns):
        raise UsageError(f"A square of {window} does not fit into {rows} × {columns} pixels.", "Make it smaller.")
    tops, lefts = places(rows, window, stride), places(columns, window, stride)
    cover = encoded_colour(network, colour).to(encoded.dtype)

    def covered(part: list[tuple[int, int] | None]) -> torch.Tensor:
        pictures = encoded.repeat(len(part), *(1,) * (encoded.ndim - 1))
        for one, place in zip(pictures, part, strict=True):
            if place is not None:
                square = (..., slice(place[0], place[0] + window), slice(place[1], place[1] + window))
                one[square] = cover[0][square]
        return pictures

    def shifted(of: Network, watch: str) -> Iterator[Trace]:
        """Batch by batch, the picture as it is before all others: it costs no run of its own."""
        every: list[tuple[int, int] | None] = [None, *((top, left) for top in tops for left in lefts)]
        for first in over(range(0, len(every), batch), "squares, batch", until=0.4):
            part = covered(every[first : first + batch])
            yield trace(of, part, layers=[watch] if watch else [], output=True)

    batches = shifted(network, watched)
    first = next(batches)
    asked = asked_about(network, encoded, target, first)
    strongest = int(first[watched].value[0].flatten(1).max(1).values.argmax()) if watched else 0
    outputs, activity = [], []
    for seen in chain([first], batches):
        outputs.append(scores_of(seen.output))
        if watched:
            activity += seen[watched].value[:, strongest].flatten(1).sum(1).tolist()
    scores = torch.cat(outputs)[1:]

    def fall(whole: float, scores: torch.Tensor) -> np.ndarray:
        falls = whole - scores[:, asked.index].double().cpu().numpy()
        total, count = np.zeros((rows, columns)), np.zeros((rows, columns))
        for drop, (top, left) in zip(falls, ((t, c) for t in tops for c in lefts), strict=True):
            total[top : top + window, left : left + window] += drop
            count[top : top + window, left : left + window] += 1
        # Pixels that no square covered, when the stride is larger than the square, are left at 0.
        return np.divide(total, count, out=np.zeros_like(total), where=count > 0)

    def again(other: Network) -> np.ndarray:
        found = torch.cat([scores_of(seen.output) for seen in shifted(other, "")])
        return fall(float(found[0, asked.index]), found[1:])

    said = network.decode(scores)
    shape = len(tops), len(lefts)
    probability = np.array([one.scores[asked.index] for one in said]).reshape(shape)
    numbers = {
        "probability": probability, "predicted": np.array([one.index for one in said]).reshape(shape),
        "score": scores[:, asked.index].cpu().numpy().reshape(shape),
    }  # fmt: skip
    if watched:
        numbers["activity"] = np.array(activity[1:]).reshape(shape)
    others = {one.label for one in said} - {asked.label}
    place = np.unravel_index(int(probability.argmin()), shape)
    summary = (
        f"Covered by a square of {window} pixels, the probability falls lowest to {probability.min():.3g}, at rows {tops[place[0]]} to "
        f"{min(tops[place[0]] + window, rows) - 1}, columns {lefts[place[1]]} to {min(lefts[place[1]] + window, columns) - 1}; "
        + (
            f"elsewhere it is also called {', '.join(sorted(others)[:3])}."
            if others
            else "it is never called anything else."
        )
    )
    finding = explained(
        network, asked, fall(asked.score, scores), again, name="occlusion", scale="signed", numbers=numbers,
        evidence=evidence, seed=seed, summary=summary,
    )  # fmt: skip
    views = (
        *finding.views,
        Overlay(f"probability of {asked.label} by the square's place", asked.picture, probability, "magnitude", 1.0),
    )
    if watched:
        views = (
            *views,
            Overlay(f"activity of {watched}, map {strongest}", asked.picture, numbers["activity"], "signed"),
        )
    provenance = {
        **finding.provenance,
        "watched": watched,
        "map": strongest,
        "rows": tops,
        "columns": lefts,
        "window": window,
    }
    return Finding(finding.numbers, views, finding.checks, finding.summary, provenance=provenance)


def places(size: int, window: int, stride: int) -> list[int]:
    """Where the square begins along one side: every stride, until the end is reached; the edge cuts off the last one."""
    count = -(-(size - window) // stride) + 1
    return [i * stride for i in range(count) if i * stride < size]


def _watched(network: Network, layer: str) -> str:
    if layer:
        chosen = network.layer(layer)
        if chosen.dims != "b c h w":
            raise UsageError(f"{layer} has no maps (its dims are {chosen.dims!r}).", "Choose a layer with b c h w.")
        return layer
    try:
        chosen, _ = last_spatial(network)
        return chosen.name if chosen.dims == "b c h w" else ""
    except NetworkError:
        return ""
