from __future__ import annotations

from typing import Annotated

import numpy as np

from ..attribution import explained, frozen, input_gradient, picture_of, question, rectified
from ..errors import UsageError
from ..fields import field_of
from ..lens import lens
from ..tracing import trace
from ..types import PREDICTED, Between, Check, Finding, Input, LayerName, Network, Target, Unit
from ..views import Overlay, Picture

PIXELS, DRAWS = 6, 20


@lens(on="b c h w", reads="pixels")
def deconvnet(
    network: Network,
    image: Input,
    *,
    layer: LayerName = "",
    target: Target = PREDICTED,
    unit: Unit | None = None,
    row: Annotated[int, Between(-1, 100000)] = -1,
    column: Annotated[int, Between(-1, 100000)] = -1,
    evidence: bool = True,
    seed: int = 0,
) -> Finding:
    """What in the picture lit one place of one feature map, or a class: its value sent back down to the pixels.

    Down through every layer: transposed convolutions, max-unpooling to the places that had won, and a ReLU on the way
    back (only what is positive passes). All other places of the layer are set to 0. Numbers: "projection" (the
    network's input shape), "map" (rows × columns: its largest size over the colours), "value" (of the place),
    "place" (unit, row, column), "box" (the receptive field: first row, first column, row and column after the last).

    Options:
        layer: a layer with maps; without one, the score of a class is sent down.
        target: the class, by name or number, when there is no layer; without one, what the network says.
        unit: which map, from 0; without one, the map with the highest value.
        row: of the place in the map, from 0; −1 for the strongest.
        column: of the place in the map, from 0; −1 for the strongest.
        evidence: also cover the strongest pixels of the projection, and as many random ones of the field.
        seed: of the random pixels.

    Raises UsageError for a map or a place that is not there.
    Source: Zeiler and Fergus (2014), "Visualizing and understanding convolutional networks".

    >>> import torch, neuralmine as nm
    >>> net = nm.load(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()), shape=(3, 12, 12))
    >>> found = nm.look("deconvnet", net, np.full((3, 12, 12), 0.5), layer="1", evidence=False)
    >>> int((found.numbers["projection"] != 0).sum()) <= 27
    True
    """
    if not layer:
        return _of_class(network, image, target, evidence, seed)
    encoded = network.encode(image)[:1]
    place, value, projection = project(network, encoded, layer, unit, row, column)
    field = field_of(network, layer)
    top, left, bottom, right = (int(v) for v in field.box(place[1], place[2]))
    inside = np.zeros(projection.shape[1:], bool)
    inside[max(top, 0) : bottom, max(left, 0) : right] = True
    importance = np.abs(projection).max(0)
    outside = float(importance[~inside].max(initial=0))
    checks = [
        Check("nothing outside the receptive field", outside, None, None, outside == 0.0,
              "Largest size of the projection outside what this place can see: exactly 0."),
    ]  # fmt: skip
    said = field.whole
    if not importance.any():
        said = "The projection is 0 everywhere: this place is off for this picture. Choose another map or picture."
    elif evidence:
        checks.append(_covered(network, encoded, layer, place, value, importance, inside, seed))
    picture = picture_of(network, encoded)
    name = f"{layer}, map {place[0]}, row {place[1]}, column {place[2]}"
    # The patch and its projection side by side, the projection on a grey ground as in the paper.
    patch = picture[max(top, 0) : bottom, max(left, 0) : right]
    shown = projection[:, max(top, 0) : bottom, max(left, 0) : right]
    drawn = 0.5 + 0.5 * np.moveaxis(shown, 0, -1) / (np.abs(shown).max() or 1.0)
    drawn = np.broadcast_to(drawn, patch.shape).astype(np.float32)
    return Finding(
        {
            "projection": projection, "map": importance, "value": np.array(value), "place": np.array(place),
            "box": np.array([top, left, bottom, right]),
        },
        (
            Overlay(f"deconvnet: {name}", picture, importance, "magnitude"),
            Picture("the patch, and what of it lit the place", np.stack([patch, drawn]), ("patch", "projection")),
        ),
        tuple(checks),
        f"{name} is {value:.4g}; its field is rows {max(top, 0)} to {bottom - 1}, columns {max(left, 0)} to {right - 1}. {said}".strip(),
    )  # fmt: skip


def _of_class(network: Network, image: object, target: str | int | None, evidence: bool, seed: int) -> Finding:
    asked = question(network, image, target)

    def projected(of: Network) -> np.ndarray:
        with rectified(guided=False):
            return input_gradient(of, asked.encoded, asked.index)[0].cpu().numpy()

    def importance(found: np.ndarray) -> np.ndarray:
        return np.abs(found).max(0) if found.ndim == 3 else np.abs(found)

    found = projected(network)
    return explained(
        network, asked, importance(found), lambda other: importance(projected(other)), name="deconvnet",
        scale="magnitude", numbers={"projection": found, "value": np.array(asked.score)}, evidence=evidence, seed=seed,
    )  # fmt: skip


def project(
    network: Network, encoded: object, layer: str, unit: int | None = None, row: int = -1, column: int = -1
) -> tuple[tuple[int, int, int], float, np.ndarray]:
    """A place of a map (unit, row, column), its value, and the value's projection onto the input (c × h × w).

    Raises UsageError for a place that is not there.
    """
    import torch

    assert isinstance(encoded, torch.Tensor)
    inputs = encoded.detach().clone().requires_grad_()
    with frozen(network), rectified(guided=False):
        maps = trace(network, inputs, layers=[layer], grad=True)[layer].value
        units, rows, columns = maps.shape[1:]
        if unit is None:
            unit = int(maps[0].flatten(1).max(1).values.argmax())
        if not (0 <= unit < units and row < rows and column < columns):
            raise UsageError(
                f"{layer} has maps 0 to {units - 1} of {rows} × {columns}; map {unit}, row {row}, column {column} is not among them.",
                "Choose a place that is there.",
            )
        map_ = maps[0, unit].detach()
        within = torch.full_like(map_, float("-inf"))
        within[row if row >= 0 else slice(None), column if column >= 0 else slice(None)] = 0
        strongest = divmod(int((map_ + within).argmax()), columns)  # of what is left open
        place = unit, row if row >= 0 else strongest[0], column if column >= 0 else strongest[1]
        value = maps[0][place]
        (projection,) = torch.autograd.grad(value, inputs, value.detach(), allow_unused=True)
    found = np.zeros(encoded.shape[1:]) if projection is None else projection[0].cpu().numpy()
    return place, float(value.detach()), found if found.ndim == 3 else found[None]


def _covered(
    network: Network, encoded: object, layer: str, place: tuple[int, int, int], value: float,
    importance: np.ndarray, inside: np.ndarray, seed: int,
) -> Check:  # fmt: skip
    """How far the place falls when its strongest pixels are set to 0, against as many at random in its field."""
    import torch

    assert isinstance(encoded, torch.Tensor)
    generator = np.random.default_rng(seed)
    candidates = np.flatnonzero(inside)
    count = min(PIXELS, len(candidates))
    chosen = [np.argsort(-importance.ravel(), kind="stable")[:count]]
    chosen += [generator.choice(candidates, count, replace=False) for _ in range(DRAWS)]
    batch = encoded.repeat(len(chosen), *(1,) * (encoded.ndim - 1))
    for one, pixels in zip(batch.flatten(-2), chosen, strict=True):
        one[..., pixels] = 0
    values = trace(network, batch, layers=[layer])[layer].value[:, place[0], place[1], place[2]].cpu().numpy()
    drops = (value - values) / (abs(value) or 1.0)
    return Check(
        f"covering its {count} strongest pixels", float(drops[0]), float(drops[1:].mean()),
        (float(drops[1:].min()), float(drops[1:].max())), bool(drops[0] > drops[1:].mean()),
        f"Share of its value that the place loses; null: {count} random pixels of its field, mean and range of {DRAWS}.",
    )  # fmt: skip
