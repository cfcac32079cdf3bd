from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from ..errors import UsageError
from ..lens import lens
from ..surfaces import Landscape, Plane, between_plane, random_plane, subset, surface, trajectory_plane
from ..types import Between, Check, Dataset, Finding, Network
from ..views import Lines, Surface, number


@lens()
def loss_landscape(
    network: Network,
    data: Dataset,
    *,
    directions: Literal["random", "pca", "between"] = "random",
    dimensions: Annotated[int, Between(1, 2)] = 2,
    size: Annotated[int, Between(2, 401)] = 41,
    reach: Annotated[float, Between(1e-6, 1e6)] = 1.0,
    other: str | None = None,
    run: str | None = None,
    limit: Annotated[int, Between(0, 10_000_000)] = 0,
    seed: Annotated[int, Between(0, 2**31)] = 0,
) -> Finding:
    """The loss around a network's weights: height at every place of a plane, or of a line, through them.

    Random directions are filter-normalised (Li, Xu, Taylor, Studer & Goldstein 2018, "Visualizing the loss landscape
    of neural nets"): each filter of a direction is as long as the network's own, biases and norms stay. Every height
    is the exact mean loss on the data.

    Numbers: "x", "y" (places along the directions), "loss" (y × x), "centre" (the network's own loss, at 0, 0); for
    "between" also "barrier" (how far the straight line to the other network rises above the straight line between
    their two losses); for "pca" "path" (steps × 2) and "explained" (share of the path's variance, by direction).

    Options:
        directions: at random; the principal components of a recorded training; or straight to another network.
        dimensions: 1 for a line, 2 for a plane.
        size: how many places along each direction; an odd number has the network itself in the middle.
        reach: how far to go; 1 is as far as the weights are long (random), just the path (pca), or from one
            network to the other (between).
        other: for "between", the second network: a name of the catalogue ("64-10:untrained" is as it began), a
            .safetensors file, the folder of a run, or "run:NAME".
        run: for "pca", the name or the folder of a recorded training of this network.
        limit: how many of the data to use, drawn at random; 0 for all.
        seed: of the random directions and the drawn data.

    Raises UsageError for a network without weights, or a second one (or a run) of another shape.

    >>> import neuralmine as nm
    >>> finding = nm.look("loss_landscape", nm.load("digits"), nm.datasets.load("digits"), size=5, limit=100)
    >>> finding.numbers["loss"].shape, bool(finding.numbers["loss"].min() == finding.numbers["loss"][2, 2])
    ((5, 5), True)
    """
    used, said = subset(data, limit, seed)
    plane = _plane(network, directions, dimensions, other, run, seed)
    landscape = Landscape(network, used, plane)
    x, y = _axes(directions, plane, dimensions, size, reach)
    losses = surface(landscape, x, y)
    finite = np.isfinite(losses)
    centre = landscape.centre
    here = float(landscape.at([[0.0] * dimensions])[0])
    same = here == centre or (not np.isfinite(centre) and not np.isfinite(here))
    gap = 0.0 if same else abs(here - centre) / max(abs(centre), 1e-6)
    numbers = {"x": x, "y": y, "loss": losses, "centre": np.array(centre)}
    words = [f"The loss is {number(centre, 5)} at the network itself"]
    if finite.any():
        low, high = float(losses[finite].min()), float(losses[finite].max())
        row, column = np.unravel_index(int(np.where(finite, losses, np.inf).argmin()), losses.shape)
        place = f"({number(x[column])}, {number(y[row])})" if dimensions == 2 else number(x[column])
        words.append(
            f", from {number(low, 5)} (at {place}) to {number(high, 5)} over {losses.size} places: {plane.about}."
        )
    else:
        words.append(f"; none of the {losses.size} places has a finite one: {plane.about}.")
    if not finite.all():
        words.append(
            f" {int((~finite).sum())} of {losses.size} losses are not finite numbers and are kept as they are."
        )
    if directions == "between":
        along = landscape.at([[t, 0.0][:dimensions] for t in np.linspace(0, 1, 41)])
        straight = along[0] + (along[-1] - along[0]) * np.linspace(0, 1, 41)
        barrier = float((along - straight).max())
        numbers["barrier"] = np.array(barrier)
        words.append(
            f" The other network's loss is {number(along[-1], 5)}; on the straight way to it the loss rises "
            f"{number(barrier)} above the straight line between the two (41 places)."
        )
    if plane.path is not None and plane.explained is not None:
        numbers |= {"path": plane.path, "explained": plane.explained}
        words.append(f" The directions hold {number(100 * float(plane.explained.sum()))} % of the path's variance.")
    words.append(f" Data: {said}. Computed by {landscape.about}. {data.note}")
    labels = {
        "random": ("direction 1 (filter lengths)", "direction 2 (filter lengths)"),
        "pca": ("component 1 (length in weights)", "component 2 (length in weights)"),
        "between": ("share of the way to the other", "random direction (filter lengths)"),
    }[directions]
    view = (
        Surface("loss around the network", x, y, losses, *labels, path=plane.path)
        if dimensions == 2
        else Lines("loss along the direction", x, {"loss": losses[0]}, labels[0], "loss", 0.0)
    )
    return Finding(
        numbers,
        (view,),
        (
            Check(
                "the surface at (0, 0) is the network's own loss",
                gap,
                passed=gap <= 1e-4,
                meaning="The height of the middle, worked out as all the others, against the loss of the network run as it is; relative.",
            ),
        ),
        summary="".join(words).strip(),
        provenance={"directions": plane.about, "computed": landscape.about, "images": said},
    )


def _plane(network: Network, directions: str, dimensions: int, other: str | None, run: str | None, seed: int) -> Plane:
    if directions == "random":
        return random_plane(network, dimensions=dimensions, seed=seed)
    if directions == "between":
        if not other:
            raise UsageError(
                "A way to another network needs that network.",
                "Give other=… a name of the catalogue, a .safetensors file or the folder of a run.",
            )
        return between_plane(network, _second(other), dimensions=dimensions, seed=seed)
    if not run:
        raise UsageError("Principal components need a recorded training.", "Give run=… the name or folder of a run.")
    from ..stores import runs

    folder = Path(run) if Path(run).is_dir() else runs.find(run)
    steps = runs.checkpoints(folder)
    if len(steps) > 200:  # enough for a path; every one of them is read
        steps = [steps[i] for i in np.unique(np.linspace(0, len(steps) - 1, 200).round().astype(int))]
    states = [runs.state_at(folder, step)["weights"] for step in steps]
    return trajectory_plane(network, states, dimensions=dimensions)


def _second(source: str) -> Network:
    """The other network, of files and names alone: a page may ask for it, so nothing is run to get it."""
    from ..networks import catalogue, load
    from ..stores import runs

    if source.startswith("run:"):
        return load(runs.find(source[4:]))
    name = source.removesuffix(":untrained")
    if name in {*catalogue.ALIASES, *catalogue.PRESETS}:
        return load(name, trained=name == source)
    if Path(source).is_dir() or source.endswith(".safetensors"):
        return load(source)
    raise UsageError(
        f"{source!r} is neither a network of the catalogue, nor a .safetensors file, nor the folder of a run.",
        f"Use one of {', '.join(catalogue.PRESETS)}, a file or a folder.",
    )


def _axes(directions: str, plane: Plane, dimensions: int, size: int, reach: float) -> tuple[np.ndarray, np.ndarray]:
    even = np.linspace(-reach, reach, size)
    if size % 2:
        even[size // 2] = 0.0
    x = y = even
    if directions == "between":
        x = 0.5 + even / 2
    if directions == "pca" and plane.path is not None:
        # As wide as the path and a tenth more, the network in the middle.
        wide = 1.1 * np.abs(plane.path).max(0)
        x, y = even * wide[0], even * (wide[1] if dimensions == 2 else 1.0)
    return x, y if dimensions == 2 else np.zeros(1)
