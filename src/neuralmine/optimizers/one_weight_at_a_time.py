"""The essay's way to learn: one weight at a time, a hop down the slope of the exact loss, then the next weight."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import UnknownName, UsageError
from ..losses import LOSSES, ideal
from .chain import chain, check_same

ORDERS = ("by_input", "by_neuron")


@dataclass(frozen=True, slots=True)
class Hop:
    """What one move did: the weight, its slope, the values tried with their exact losses, and what came of it."""

    name: str
    index: tuple[int, ...]
    slope: float
    hops: tuple[tuple[float, float], ...]
    old_weight: float
    new_weight: float
    old_loss: float
    new_loss: float


_WORTH_CUTTING = 0.8  # above this share of images with ink, cutting them out costs more than it saves
_QUIET = np.errstate(over="ignore", invalid="ignore")  # an infinite loss is just one that is not lower


@dataclass(slots=True, eq=False)
class _Part:
    """All that moving the weights of one input can change, cut out of the whole: units × images, for each layer from
    `place` on. `rows` are the images that feel the input, None for all of them; `total` is their loss added up."""

    place: int
    given: int
    rows: np.ndarray | None
    ink: np.ndarray
    sums: list[np.ndarray]
    values: list[np.ndarray]
    ideal: np.ndarray
    total: float | None = None


class OneWeightAtATime(torch.optim.Optimizer):
    """Adjust one weight at a time on the exact loss over all images.

    `module` is a chain of Linear layers and elementwise activations; `inputs` is n × …, `labels` n classes. The loss
    is the mean over the images of what `losses.per_output` adds up, without dropout. A step hops one weight by
    −rate × slope; when that overshoots (the exact loss is not lower there) the hop halves, at most `halvings` times,
    and else the weight stays: no step ever raises the loss.

    `step()` moves the next weight and returns a Hop; `sweep()` moves all of them once, giving the same weights,
    faster: it keeps the pre-activations and computes only what a hop changes. Both go through the layers from the
    first, and within a layer in `order`: "by_input" (what one input has to every neuron, then the next input; the
    bias counts as the last) or "by_neuron". Biases are weights too; frozen parameters stay. `count` is the number of
    weights. Both look at the parameters anew, so anyone may change them in between; `state_dict()` has which weight
    is next, and resuming from it gives the same weights to the bit.

    Raises UsageError for a module that is no such chain, UnknownName for a loss or order that does not exist.
    Source: the essay "Behind the Eyeballs of AI" (Mahoney 2020); coordinate descent with backtracking.

    >>> from neuralmine.architectures import build
    >>> net, x, y = build({"sizes": [4, 2]}), torch.rand(8, 4, dtype=torch.float64), torch.tensor([0, 1] * 4)
    >>> optimizer = OneWeightAtATime(net, x, y)
    >>> hop = optimizer.step()
    >>> hop.name, hop.new_loss <= hop.old_loss
    ('output.sum.weight', True)
    """

    def __init__(
        self,
        module: nn.Module,
        inputs: torch.Tensor,
        labels: torch.Tensor,
        *,
        loss: str = "squared",
        rate: float = 4.0,
        halvings: int = 10,
        order: str = "by_input",
    ) -> None:
        _check(inputs, labels, loss, rate, halvings, order)
        flat = inputs.detach().cpu().reshape(len(inputs), -1).numpy()
        self._layers = chain(module, flat.shape[1])
        super().__init__(list(module.parameters()), {"lr": rate, "cursor": 0, "order": order})
        self.loss_name, self.halvings = loss, halvings
        self.count = sum(layer.inputs * layer.units for layer in self._layers)
        self._data = np.ascontiguousarray(flat.T, dtype=np.float64)
        self._ones = np.ones(len(flat))
        # Images without ink at a pixel feel nothing of its weights: only the others are computed anew.
        inked = [np.flatnonzero(row) for row in self._data]
        self._inked = [None if len(rows) > _WORTH_CUTTING * len(flat) else rows for rows in inked]
        outputs = torch.zeros(len(flat), self._layers[-1].units, dtype=torch.float64)
        self._ideal = np.ascontiguousarray(ideal(outputs, labels.cpu()).numpy().T)
        self.refresh()
        check_same(module, inputs, self._values[-1].T)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("cursor", 0)
            group.setdefault("order", "by_input")

    @_QUIET
    def refresh(self) -> float:
        """Compute every pre-activation anew from the weights as they are now; returns the exact loss, an image."""
        self._sums, self._values = [], [self._data]  # values[k] goes into layer k, values[k + 1] comes out of it
        for layer in self._layers:
            self._sums.append(layer.sums(self._values[-1]))
            self._values.append(layer.act(self._sums[-1]))
        self._loss = self._total(self._values[-1], self._ideal)
        return self.loss

    @property
    def loss(self) -> float:
        """The exact loss, an image, when last looked at: after the last step, sweep or refresh."""
        return self._loss / len(self._ones)

    @torch.no_grad()
    @_QUIET
    def step(self, closure: Any = None) -> Hop:  # type: ignore[override]
        """Move the next weight; `closure` is not used, the loss is known here."""
        # Anew each time: nothing drifts, so a resumed run and one that never stopped stay equal to the bit.
        self.refresh()
        group = self.param_groups[0]
        place, given, unit = self._address(group["cursor"])
        part = self._cut(place, given)
        hop = self._hop(part, unit)
        self._paste(part)
        self._tell_autograd()
        group["cursor"] = (group["cursor"] + 1) % self.count
        return hop

    @torch.no_grad()
    @_QUIET
    def sweep(self, on_weight: Callable[[Hop], object] | None = None) -> float:
        """Move every weight once, from the first; returns the exact loss after it.

        `on_weight` is called with each Hop; without it the outputs' weights of one input move in one operation.
        """
        self.refresh()
        for place, given, units in self._moves(one_by_one=on_weight is not None):
            part = self._cut(place, given)
            if self._apart(place) and on_weight is None:
                self._move_apart(part, units)
            else:
                for unit in range(units.start, units.stop):
                    if on_weight is None:
                        self._move(part, unit)
                    else:
                        on_weight(self._hop(part, unit))
            self._paste(part)
        self._tell_autograd()
        self.param_groups[0]["cursor"] = 0
        return self.refresh()

    @_QUIET
    def curve(
        self, name: str, index: tuple[int, ...], *, around: float | None = None, span: float = 3.0, points: int = 61
    ) -> tuple[np.ndarray, np.ndarray]:
        """The real curve of the loss by one weight, all others as they are: the weight's values and the exact losses.

        `points` values from `around` − span to `around` + span; `around` is the weight's present value unless given.
        Raises UnknownName for a parameter that is not in the chain, UsageError for an index outside it.
        """
        place, given, unit = self._find(name, tuple(index))
        self.refresh()
        part = self._cut(place, given)
        now = float(self._layers[place].column(given)[unit])
        values = np.linspace(-span, span, points) + (now if around is None else around)
        rest = self._loss - self._total(part.values[-1], part.ideal)
        totals = [self._total(self._try(part, unit, value - now)[1][-1], part.ideal) for value in values]
        return values, (rest + np.array(totals)) / len(self._ones)

    def where(self) -> tuple[str, tuple[int, ...]]:
        """The parameter and index of the weight that the next step moves."""
        place, given, unit = self._address(self.param_groups[0]["cursor"])
        return self._layers[place].place(given, unit)

    def _address(self, cursor: int) -> tuple[int, int, int]:
        """The layer, input and unit of the weight with that number."""
        cursor %= self.count
        for place, layer in enumerate(self._layers):
            if cursor < layer.inputs * layer.units:
                if self.param_groups[0]["order"] == "by_neuron":
                    unit, given = divmod(cursor, layer.inputs)
                else:
                    given, unit = divmod(cursor, layer.units)
                return place, given, unit
            cursor -= layer.inputs * layer.units
        raise AssertionError("the cursor is kept below the number of weights")

    def _moves(self, one_by_one: bool) -> Iterator[tuple[int, int, slice]]:
        """Layer, input and the units to move in turn, for every weight once."""
        by_neuron = self.param_groups[0]["order"] == "by_neuron"
        for place, layer in enumerate(self._layers):
            # Where outputs do not touch each other's loss, both orders give the same weights.
            if by_neuron and (one_by_one or not self._apart(place)):
                for unit in range(layer.units):
                    yield from ((place, given, slice(unit, unit + 1)) for given in range(layer.inputs))
            else:
                yield from ((place, given, slice(0, layer.units)) for given in range(layer.inputs))

    def _find(self, name: str, index: tuple[int, ...]) -> tuple[int, int, int]:
        names = []
        for place, layer in enumerate(self._layers):
            for given in {0, layer.inputs - 1}:
                names.append(layer.place(given, 0)[0])
                if names[-1] != name:
                    continue
                shape = tuple(layer.parameter(given).shape)
                if len(index) != len(shape) or not all(0 <= i < n for i, n in zip(index, shape, strict=True)):
                    raise UsageError(f"{name} has shape {shape} and no {index}.", "Count from 0, below that shape.")
                return place, index[1] if len(index) == 2 else layer.linear.in_features, index[0]
        raise UnknownName("parameter", name, sorted(set(names)))

    def _apart(self, place: int) -> bool:
        """Whether one unit's weights leave the other units' part of the loss alone."""
        return self.loss_name == "squared" and place == len(self._layers) - 1

    def _cut(self, place: int, given: int) -> _Part:
        source = self._values[place]
        ink = self._ones if given == len(source) else source[given]
        rows = self._inked[given] if place == 0 and given < len(source) else None
        sums, values, wanted = self._sums[place:], self._values[place + 1 :], self._ideal
        if rows is not None:
            ink, wanted = ink[rows], wanted.take(rows, 1)
            sums, values = [s.take(rows, 1) for s in sums], [v.take(rows, 1) for v in values]
        return _Part(place, given, rows, ink, sums, values, wanted)

    def _paste(self, part: _Part) -> None:
        for i, (sums, values) in enumerate(zip(part.sums, part.values, strict=True), start=part.place):
            if part.rows is None:
                self._sums[i], self._values[i + 1] = sums, values
            else:
                self._sums[i][:, part.rows], self._values[i + 1][:, part.rows] = sums, values

    def _tell_autograd(self) -> None:
        """Written through numpy, so torch has to be told: a graph kept from before must not use the new values."""
        for layer in self._layers:
            for parameter in layer.linear.parameters():
                torch.autograd.graph.increment_version(parameter)

    def _total(self, values: np.ndarray, wanted: np.ndarray) -> float:
        """The loss added up over images, from the last layer's values (activations or logits)."""
        if self.loss_name == "squared":
            off = values - wanted
            return float(np.vdot(off, off))
        top = values.max(0)
        logs = top + np.log(np.exp(values - top).sum(0))
        return float((logs * wanted.sum(0) - (values * wanted).sum(0)).sum())

    def _error(self, part: _Part) -> np.ndarray:
        """dLoss/d sum of the last layer, outputs × images, of the added-up loss."""
        values = part.values[-1]
        if self.loss_name == "squared":
            error = 2 * (values - part.ideal)
        else:
            scaled = np.exp(values - values.max(0))
            error = scaled * (part.ideal.sum(0) / scaled.sum(0)) - part.ideal
        return error * self._layers[-1].slope(values)

    def _slope(self, part: _Part, unit: int) -> float:
        """dLoss/d weight of the added-up loss: the error sent back along the chain to this one unit."""
        error, layers = self._error(part), self._layers[part.place :]
        if len(layers) == 1:
            return float(error[unit] @ part.ink)
        for later in range(len(layers) - 1, 1, -1):
            below = part.values[later - 1]
            error = (layers[later].weight.T @ error) * layers[later - 1].slope(below)
        error = (layers[1].weight[:, unit] @ error) * layers[0].slope(part.values[0][unit])
        return float(error @ part.ink)

    def _try(self, part: _Part, unit: int, change: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The new sums and values of the layers from here on if this weight changed: of the unit, then whole ones."""
        layers = self._layers[part.place :]
        sums = [part.sums[0][unit] + change * part.ink]
        values = [layers[0].act(sums[0])]
        if len(layers) == 1:
            outputs = part.values[0].copy()
            outputs[unit] = values[0]
            return sums, [outputs]
        felt = layers[1].weight[:, unit, None] * (values[0] - part.values[0][unit])
        sums.append(np.add(part.sums[1], felt, out=felt))
        values.append(layers[1].act(sums[1]))
        for layer in layers[2:]:
            sums.append(layer.sums(values[-1]))
            values.append(layer.act(sums[-1]))
        return sums, values

    def _hop(self, part: _Part, unit: int) -> Hop:
        """Move one weight and tell all about it."""
        layer, images, loss = self._layers[part.place], len(self._ones), self._loss
        column = layer.column(part.given)
        before = float(column[unit])
        if self._apart(part.place):
            slopes, tried = self._move_apart(part, slice(unit, unit + 1))
            slope, tried = float(slopes[0]), [(float(values[0]), float(gains[0])) for values, gains in tried]
        else:
            slope, tried = self._move(part, unit)
        gain = tried[-1][1] if tried and tried[-1][1] < 0 else 0.0
        self._loss = loss + gain
        name, index = layer.place(part.given, unit)
        hops = tuple((value, (loss + gain) / images) for value, gain in tried)
        return Hop(name, index, slope, hops, before, float(column[unit]), loss / images, self.loss)

    def _tries(self, part: _Part) -> int:
        return self.halvings + 1 if self._layers[part.place].parameter(part.given).requires_grad else 0

    def _move(self, part: _Part, unit: int) -> tuple[float, list[tuple[float, float]]]:
        """Hop with one weight; its slope, and the values tried with what each would add to the added-up loss."""
        column = self._layers[part.place].column(part.given)
        if part.total is None:
            part.total = self._total(part.values[-1], part.ideal)
        before, slope = float(column[unit]), self._slope(part, unit) / len(self._ones)
        change, tried = -self.param_groups[0]["lr"] * slope, []
        for _ in range(self._tries(part) if slope != 0 else 0):
            # What the parameter's own precision makes of the hop is what is tried and kept.
            value = column.dtype.type(before + change)
            sums, values = self._try(part, unit, float(value) - before)
            total = self._total(values[-1], part.ideal)
            tried.append((float(value), total - part.total))
            if total < part.total:
                column[unit] = value
                part.sums[0][unit], part.total = sums[0], total
                part.values[0][unit] = values[0][unit] if len(values) == 1 else values[0]
                part.sums[1:], part.values[1:] = sums[1:], values[1:]
                break
            change /= 2
        return slope, tried

    def _move_apart(self, part: _Part, units: slice) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
        """The same as `_move` for each of these outputs in turn, in one operation: no output touches another's loss."""
        layer, column = self._layers[part.place], self._layers[part.place].column(part.given)[units]
        sums, values, wanted = part.sums[0][units], part.values[0][units], part.ideal[units]
        off = values - wanted
        slopes = (2 * off * layer.slope(values)) @ part.ink / len(self._ones)
        ones = self._ones[: off.shape[1]]
        old = (off * off) @ ones
        before, change, tried = column.astype(np.float64), -self.param_groups[0]["lr"] * slopes, []
        left = np.flatnonzero(slopes)
        for _ in range(self._tries(part)):
            if len(left) == 0:
                break
            every = len(left) == len(old)  # then views do, and no copies are needed
            pick: Any = slice(None) if every else left
            value = (before[pick] + change[pick]).astype(column.dtype)
            new_sums = (value - before[pick])[:, None] * part.ink
            new_sums += sums[pick]
            new_values = layer.act(new_sums)
            off = new_values - wanted[pick]
            gains = (off * off) @ ones - old[pick]
            tried.append((value, gains))
            lower = gains < 0
            done = left[lower]
            column[done] = value[lower]
            sums[done], values[done] = new_sums[lower], new_values[lower]
            left = left[~lower]
            change[left] /= 2
        return slopes, tried


def _check(inputs: torch.Tensor, labels: torch.Tensor, loss: str, rate: float, halvings: int, order: str) -> None:
    for kind, name, allowed in (("loss", loss, LOSSES), ("order", order, ORDERS)):
        if name not in allowed:
            raise UnknownName(kind, name, allowed)
    if not rate >= 0 or halvings < 0:
        raise UsageError(f"rate is {rate}, halvings {halvings}.", "Give numbers that are not below 0.")
    if len(inputs) != len(labels) or len(inputs) == 0:
        raise UsageError(f"{len(inputs)} inputs but {len(labels)} labels.", "Give one label for each input, and some.")
