from __future__ import annotations

import math
from functools import cache
from typing import Annotated, Any

import numpy as np

from ..errors import UsageError
from ..lens import lens
from ..types import Between, Check, Finding, LayerName, Network
from ..views import Grid, Picture, Table


@lens(reads="pixels")
def filters(
    network: Network, *, layer: LayerName = "", shuffles: Annotated[int, Between(20, 1000)] = 100, seed: int = 0
) -> Finding:
    """What the filters of the first layer look like: which are striped (Gabor functions), and which are coloured.

    Numbers: "filters" (filters × colours × rows × columns, the weights as they stand, on the normalised picture),
    "component" (filters × rows × columns: the filter's first principal colour component) and its "colour" (filters ×
    colours, of length 1), "gabor" (the function fitted to it), "r2" (share of the component's variance that the
    function explains; below 0 it is worse than a constant), "orientation" (degrees of the stripes, counter-clockwise:
    0 they lie, 90 they stand), "frequency" (cycles a pixel), "opponency" (share of the filter's energy off the grey
    axis: 0 grey, 1 only differences of colours), "r2_null" and "opponency_null" (the same for random filters).
    The null is filters of the same size whose weights are drawn from a normal distribution, each fitted in the same
    way; neither score depends on a filter's norm. Both checks count the filters beyond the null's 95th percentile.

    Options:
        layer: a convolution that reads the picture itself; the first one when empty.
        shuffles: how many random filters make the null.
        seed: of the random filters.

    Raises UsageError for a layer that is no convolution of the picture, or whose filters are smaller than 3 × 3.
    Source: Krizhevsky, Sutskever and Hinton (2012), Fig. 3; Jones and Palmer (1987) for the fit of Gabor functions.

    >>> import torch, neuralmine as nm
    >>> net = nm.load(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 5), torch.nn.Flatten()), shape=(3, 12, 12))
    >>> nm.look("filters", net, shuffles=20).numbers["filters"].shape
    (4, 3, 5, 5)
    """
    import torch

    reading = _convolutions_of_the_picture(network)
    if not reading:
        raise UsageError("No convolution of this network reads the picture itself.", "Look at another network.")
    layer = layer or reading[0]
    if layer not in reading:
        raise UsageError(f"{layer!r} is no convolution of the picture itself.", f"Choose {' or '.join(reading)}.")
    convolution = network.module.get_submodule(layer)
    assert isinstance(convolution, torch.nn.Conv2d)
    weights = convolution.weight.detach().cpu().double().numpy()
    count, colours, rows, columns = weights.shape
    if rows < 3 or columns < 3:
        raise UsageError(
            f"The filters of {layer!r} are {rows} × {columns}; a striped pattern needs at least 3 × 3.",
            "Look at a network whose first filters are larger.",
        )
    component, colour = principal(weights)
    gabor, r2, orientation, frequency = gabor_fit(component)
    opponent = opponency(weights)
    random = np.random.default_rng(seed).standard_normal((shuffles, colours, rows, columns))
    r2_null = gabor_fit(principal(random)[0])[1]
    opponent_null = opponency(random)
    striped, striped_bar, by_luck = _beyond(r2, r2_null)
    coloured, coloured_bar, _ = _beyond(opponent, opponent_null)
    best = np.argsort(-r2, kind="stable")
    size = np.abs(weights).max((1, 2, 3), keepdims=True)
    shown = (0.5 + weights / np.where(size > 0, size, 1) / 2).transpose(0, 2, 3, 1)[:96]
    names = tuple(str(i) for i in range(len(shown)))
    pictures = (Picture("the filters as pictures, grey is 0", shown, names),) if colours == 3 else ()
    table = Table(
        "filters, the best Gabor functions first",
        ("filter", "r²", "stripes at °", "cycles a pixel", "off the grey axis"),
        tuple(
            (int(i), float(r2[i]), float(orientation[i]), float(frequency[i]), float(opponent[i])) for i in best[:24]
        ),
    )
    small = " Filters this small are fitted well by chance, so little can be told." if striped_bar > 0.9 else ""
    grey = " The network reads grey pictures." if colours == 1 else ""
    return Finding(
        {
            "filters": weights,
            "component": component,
            "colour": colour,
            "gabor": gabor,
            "r2": r2,
            "orientation": orientation,
            "frequency": frequency,
            "opponency": opponent,
            "r2_null": r2_null,
            "opponency_null": opponent_null,
        },
        (
            *pictures,
            Grid(f"{min(count, 36)} filters of {layer}, the best Gabor functions first", _sheet(component[best[:36]])),
            table,
        ),
        (
            Check(
                "filters that are striped",
                float(striped),
                float(by_luck),
                None,
                striped > by_luck,
                f"Of {count}, how many a Gabor function fits with r² above {striped_bar:.3g}, the 95th percentile of "
                f"{shuffles} random filters; beside it how many of so many random ones would (95th percentile).{small}",
            ),
            Check(
                "filters that are coloured",
                float(coloured),
                float(by_luck),
                None,
                coloured > by_luck if colours > 1 else None,
                f"Of {count}, how many have more than {100 * coloured_bar:.3g} % of their energy off the grey axis, the "
                f"95th percentile of random filters.{grey}",
            ),
        ),
        summary=f"{layer} has {count} filters of {rows} × {columns}. {striped} are striped beyond chance (r² above "
        f"{striped_bar:.3g}; median {np.median(r2):.3g}, of random filters {np.median(r2_null):.3g}).{small}"
        + (
            grey
            if colours == 1
            else f" {coloured} are coloured beyond chance and {int((opponent < np.quantile(opponent_null, 0.05)).sum())} "
            f"are greyer than chance (median {100 * np.median(opponent):.3g} % off the grey axis, of random filters "
            f"{100 * np.median(opponent_null):.3g} %)."
        ),
        provenance={"layer": layer},
    )


def principal(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each filter's best picture in one colour (the first singular pair of colours × pixels), and that colour.

    >>> grey = np.ones((1, 3, 1, 1)) * np.array([[[[1.0, -2.0]]]])
    >>> component, colour = principal(grey)
    >>> component.round(3).tolist(), colour.round(3).tolist()
    ([[[1.732, -3.464]]], [[0.577, 0.577, 0.577]])
    """
    count, colours = weights.shape[:2]
    left, lengths, right = np.linalg.svd(weights.reshape(count, colours, -1), full_matrices=False)
    colour, component = left[:, :, 0], lengths[:, :1] * right[:, 0]
    largest = np.take_along_axis(colour, np.abs(colour).argmax(1, keepdims=True), 1)
    sign = np.where(largest < 0, -1.0, 1.0)
    return (sign * component).reshape(count, *weights.shape[2:]), sign * colour


def opponency(weights: np.ndarray) -> np.ndarray:
    """The share of each filter's energy that is left when the mean over the colours is taken away; 0 for no weights.

    >>> opponency(np.array([[[[1.0]], [[1.0]]], [[[1.0]], [[-1.0]]]])).tolist()
    [0.0, 1.0]
    """
    off = ((weights - weights.mean(1, keepdims=True)) ** 2).sum((1, 2, 3))
    energy = (weights**2).sum((1, 2, 3))
    return np.divide(off, energy, out=np.zeros(len(weights)), where=energy > 0)


def gabor_fit(surfaces: np.ndarray, starts: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The Gabor function nearest to each surface by least squares: they, their r², stripes' degrees, and frequencies.

    A wave under a Gaussian: place, two widths, direction and frequency are searched from the best few of a fixed grid
    of starts (Levenberg and Marquardt, all surfaces at once); amplitude and phase are solved exactly at every step.
    """
    count, rows, columns = surfaces.shape
    values = surfaces.reshape(count, -1)
    angles, bases = _starts(rows, columns)
    fitting = sum((values @ bases[:, i].T) ** 2 for i in (0, 1))
    first = np.argsort(-fitting, 1, kind="stable")[:, :starts]
    refined, costs = _refined(angles[first.ravel()], np.repeat(values, starts, 0), rows, columns)
    best = costs.reshape(count, starts).argmin(1)
    parameters = _bounded(refined.reshape(count, starts, 6)[np.arange(count), best], rows, columns)
    fitted = _nearest(parameters, values, rows, columns)
    spread = ((values - values.mean(1, keepdims=True)) ** 2).sum(1)
    unexplained = np.divide(((values - fitted) ** 2).sum(1), spread, out=np.ones(count), where=spread > 0)
    return fitted.reshape(surfaces.shape), 1 - unexplained, (np.degrees(parameters[:, 4]) + 90) % 180, parameters[:, 5]


def _refined(angles: np.ndarray, values: np.ndarray, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Levenberg and Marquardt on every row at once, with slopes by differences: where each ends, and its cost."""
    values = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-300)

    def left(at: np.ndarray) -> np.ndarray:
        return _nearest(_bounded(at, rows, columns), values, rows, columns) - values

    angles, missing = angles.copy(), left(angles)
    costs, damping, step = (missing**2).sum(1), np.full(len(angles), 1e-2), 1e-6
    for _ in range(50):
        slopes = np.stack([(left(angles + step * axis) - missing) / step for axis in np.eye(6)], 1)
        square = slopes @ slopes.transpose(0, 2, 1)
        scale = np.einsum("nii->ni", square) + 1e-9
        damped = square + (damping[:, None] * scale)[..., None] * np.eye(6) + 1e-12 * np.eye(6)
        trial = angles - np.linalg.solve(damped, slopes @ missing[..., None])[..., 0]
        new = left(trial)
        new_costs = (new**2).sum(1)
        better = new_costs < costs
        settled = not (new_costs < costs - 1e-9).any() and damping.min() > 1
        angles[better], missing[better], costs[better] = trial[better], new[better], new_costs[better]
        damping = np.clip(np.where(better, damping / 4, damping * 4), 1e-9, 1e9)
        if settled:
            break
    return angles, costs


def _waves(parameters: np.ndarray, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """The cosine and the sine under one Gaussian, n × pixels. Angles are counter-clockwise, so y goes up."""
    x0, y0, along, across, angle, frequency = parameters.T[..., None]
    y, x = np.mgrid[:rows, :columns].reshape(2, -1)
    x, y = x - (columns - 1) / 2 - x0, (rows - 1) / 2 - y - y0
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    envelope = np.exp(-((u / along) ** 2 + (v / across) ** 2) / 2)
    return envelope * np.cos(2 * np.pi * frequency * u), envelope * np.sin(2 * np.pi * frequency * u)


def _nearest(parameters: np.ndarray, values: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Of all amplitudes and phases of these waves, the one nearest to the values (two equations, solved by hand)."""
    one, other = _waves(parameters, rows, columns)
    a, b, c = (one * one).sum(1), (one * other).sum(1), (other * other).sum(1)
    a, c = a + 1e-12 * (a + c) + 1e-300, c + 1e-12 * (a + c) + 1e-300
    p, q, whole = (one * values).sum(1), (other * values).sum(1), a * c - b * b
    return ((c * p - b * q) / whole)[:, None] * one + ((a * q - b * p) / whole)[:, None] * other


def _limits(rows: int, columns: int) -> np.ndarray:
    """6 × (lowest, highest): place, widths along and across the wave, direction, frequency from half a cycle on."""
    size = max(rows, columns)
    half = ((columns - 1) / 2, (rows - 1) / 2)
    return np.array(
        [(-half[0], half[0]), (-half[1], half[1]), (0.5, size), (0.5, size), (-9.5, 9.5), (0.5 / size, 0.5)]
    )


def _bounded(angles: np.ndarray, rows: int, columns: int) -> np.ndarray:
    low, high = _limits(rows, columns).T  # the sine keeps the search inside without a wall
    return low + (high - low) * (1 + np.sin(angles)) / 2


@cache
def _starts(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """The grid of starts (as the angles that `_bounded` takes), and for each an orthonormal pair that spans it."""
    limits = _limits(rows, columns)
    size = max(rows, columns)
    grid = np.array(
        [
            (x * columns, y * rows, width * size, width * size, angle, frequency)
            for x in (-0.2, 0.0, 0.2)
            for y in (-0.2, 0.0, 0.2)
            for width in (0.15, 0.3, 0.6)
            for angle in np.arange(12) * np.pi / 12
            for frequency in np.geomspace(0.8 / size, 0.45, 6)
        ]
    )
    low, high = limits.T
    grid = np.clip(grid, low + 0.01 * (high - low), high - 0.01 * (high - low))
    bases = np.linalg.qr(np.stack(_waves(grid, rows, columns), 2))[0].transpose(0, 2, 1)
    return np.arcsin(2 * (grid - low) / (high - low) - 1), bases


def _beyond(scores: np.ndarray, null: np.ndarray) -> tuple[int, float, int]:
    """How many scores lie above the null's 95th percentile, that percentile, and how many would in 95 % of cases."""
    from scipy.stats import binom

    bar = float(np.quantile(null, 0.95))
    return int((scores > bar).sum()), bar, int(binom.ppf(0.95, len(scores), 0.05))


def _sheet(surfaces: np.ndarray) -> np.ndarray:
    """Tiles side by side with a line of zeros between them, each scaled to a largest value of 1."""
    count, rows, columns = surfaces.shape
    wide = math.ceil(math.sqrt(count))
    sheet = np.zeros((math.ceil(count / wide) * (rows + 1) - 1, wide * (columns + 1) - 1))
    for i, one in enumerate(surfaces):
        top, left = (i // wide) * (rows + 1), (i % wide) * (columns + 1)
        sheet[top : top + rows, left : left + columns] = one / (np.abs(one).max() or 1.0)
    return sheet


def _convolutions_of_the_picture(network: Network) -> list[str]:
    """The convolutions that are given the picture itself, maybe padded, or with its colours shifted and scaled."""
    import torch

    picture = network.encode(np.random.default_rng(0).uniform(0, 1, network.shape))
    wanted = picture.detach().double().reshape(1, -1, *picture.shape[-2:])
    found: list[str] = []

    def note(name: str) -> Any:
        def hook(part: torch.nn.Module, given: tuple[Any, ...]) -> None:
            if given and any(_same_up_to_scale(part, wanted) for part in _windows(given[0].double(), wanted)):
                found.append(name)

        return hook

    known = {layer.name for layer in network.layers}
    convolutions = {n: p for n, p in network.module.named_modules() if isinstance(p, torch.nn.Conv2d) and n in known}
    hooks = [part.register_forward_pre_hook(note(name)) for name, part in convolutions.items()]
    try:
        with torch.no_grad():
            network.module.eval()(picture.clone())
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _windows(given: Any, picture: Any) -> list[Any]:
    """Every part of what is given that is as large as the picture; none when more than a border of 8 pixels is left."""
    if given.ndim != 4 or given.shape[:2] != picture.shape[:2]:
        return []
    extra = [one - other for one, other in zip(given.shape[2:], picture.shape[2:], strict=True)]
    if min(extra) < 0 or max(extra) > 8:
        return []
    rows, columns = picture.shape[2:]
    return [given[..., i : i + rows, j : j + columns] for i in range(extra[0] + 1) for j in range(extra[1] + 1)]


def _same_up_to_scale(given: Any, picture: Any) -> bool:
    for one, other in zip(given[0].flatten(1), picture[0].flatten(1), strict=True):
        one, other = one - one.mean(), other - other.mean()
        lengths = float(one.norm() * other.norm())
        if lengths == 0 or float((one * other).sum()) < (1 - 1e-6) * lengths:
            return False
    return True
