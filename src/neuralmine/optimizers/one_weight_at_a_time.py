"""The essay's way to learn: one weight at a time, a hop down the slope of the exact loss, then the next weight."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import UnknownName, UsageError
from ..losses import LOSSES, ideal


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


def _sigmoid(z: np.ndarray) -> np.ndarray:
    # exp(−|z|) never overflows; the quotient picks the right branch without a mask.
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1.0, e) / (1.0 + e)


_ACTIVATIONS = {
    "Sigmoid": (_sigmoid, lambda a: a * (1 - a)),
    "Tanh": (np.tanh, lambda a: 1 - a * a),
    "ReLU": (lambda z: np.maximum(z, 0), lambda a: (a > 0).astype(a.dtype)),
    "": (lambda z: z, np.ones_like),
}


@dataclass(slots=True, eq=False)
class _Layer:
    """A Linear and its activation; arrays are units × images. The bias is the weight of one more input, always 1."""

    name: str
    weight: np.ndarray
    bias: np.ndarray | None
    activation: str
    sums: np.ndarray
    values: np.ndarray

    def inputs(self) -> int:
        return self.weight.shape[1] + (self.bias is not None)

    def column(self, given: int) -> np.ndarray:
        """The weights that this input has to every unit, as a view that can be written."""
        if given == self.weight.shape[1]:
            assert self.bias is not None
            return self.bias
        return self.weight[:, given]

    def act(self, sums: np.ndarray) -> np.ndarray:
        return _ACTIVATIONS[self.activation][0](sums)

    def slope(self, values: np.ndarray) -> np.ndarray:
        return _ACTIVATIONS[self.activation][1](values)


class OneWeightAtATime(torch.optim.Optimizer):
    """Adjust one weight at a time on the exact loss over all images.

    `module` is a chain of Linear layers and elementwise activations; `inputs` is n × …, `labels` n classes. The loss
    is the mean over the images of what `losses.per_output` adds up. A step hops one weight by −lr × slope; when that
    overshoots (the exact loss is higher there) the hop halves, at most `halvings` times, and else the weight stays:
    no step ever raises the loss. Pre-activations are kept and only their changed part is computed anew.

    `step()` moves the next weight and returns a Hop; `sweep()` moves all of them once, giving the same weights;
    both go through the layers from the first, and within a layer input by input. `count` is the number of weights.

    Raises UsageError for a module that is no such chain, UnknownName for a loss that does not exist.
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
    ) -> None:
        if loss not in LOSSES:
            raise UnknownName("loss", loss, LOSSES)
        super().__init__(list(module.parameters()), {"lr": rate, "cursor": 0})
        self.loss_name, self.halvings = loss, halvings
        self._data = np.ascontiguousarray(inputs.detach().reshape(len(inputs), -1).numpy().T, dtype=np.float64)
        # Images without ink at a pixel feel nothing of its weights: only the others are computed anew.
        inked = [np.flatnonzero(row) for row in self._data]
        self._inked = [None if len(rows) == self._data.shape[1] else rows for rows in inked]
        self._layers = list(_chain(module, self._data.shape))
        with torch.no_grad():
            outputs = torch.zeros(len(inputs), len(self._layers[-1].weight), dtype=torch.float64)
            self._ideal = np.ascontiguousarray(ideal(outputs, labels).numpy().T)
        self._ones = np.ones(self._data.shape[1])
        self.count = sum(layer.inputs() * len(layer.weight) for layer in self._layers)
        # One output's weights do not touch another output's loss: those of one input can be moved together.
        self._separable = loss == "squared"
        self.refresh()

    def refresh(self) -> float:
        """Compute every pre-activation anew from the weights as they are now; returns the exact loss."""
        values = self._data
        for layer in self._layers:
            layer.sums = layer.weight.astype(np.float64) @ values
            if layer.bias is not None:
                layer.sums += layer.bias[:, None]
            layer.values = values = layer.act(layer.sums)
        self._versions = self._current_versions()
        self._loss = self._total(self._layers[-1].values)
        return self.loss

    @property
    def loss(self) -> float:
        """The exact loss now, an image."""
        return self._loss / self._data.shape[1]

    @torch.no_grad()
    def step(self, closure: Any = None) -> Hop:  # type: ignore[override]
        """Move the next weight; `closure` is not used, the loss is known here."""
        self._refresh_if_changed()
        group = self.param_groups[0]
        place, given, unit = self._address(group["cursor"])
        group["cursor"] = (group["cursor"] + 1) % self.count
        return self._move(place, given, unit, group["lr"])

    @torch.no_grad()
    def sweep(self) -> float:
        """Move every weight once, from the first; returns the exact loss after it."""
        rate, last = self.param_groups[0]["lr"], len(self._layers) - 1
        self.refresh()
        for place, layer in enumerate(self._layers):
            for given in range(layer.inputs()):
                if place == last and self._separable:
                    self._move_together(given, rate)
                else:
                    for unit in range(len(layer.weight)):
                        self._move(place, given, unit, rate)
        self.param_groups[0]["cursor"] = 0
        return self.refresh()

    @torch.no_grad()
    def curve(self, name: str, index: tuple[int, ...], values: np.ndarray) -> np.ndarray:
        """The exact loss for each value that this one weight might have, all others as they are."""
        self._refresh_if_changed()
        for place, layer in enumerate(self._layers):
            if name in (f"{layer.name}.weight", f"{layer.name}.bias"):
                given = index[1] if name.endswith(".weight") else layer.weight.shape[1]
                now = float(layer.column(given)[index[0]])
                totals = [self._try(place, given, index[0], float(v) - now)[0] for v in values]
                return np.array(totals) / self._data.shape[1]
        raise UnknownName("parameter", name, [f"{layer.name}.weight" for layer in self._layers])

    def where(self) -> tuple[str, tuple[int, ...]]:
        """The parameter and index of the weight that the next step moves."""
        place, given, unit = self._address(self.param_groups[0]["cursor"])
        return self._name(place, given, unit)

    def _current_versions(self) -> list[int]:
        return [p._version for group in self.param_groups for p in group["params"]]

    def _refresh_if_changed(self) -> None:
        if self._versions != self._current_versions():
            self.refresh()

    def _address(self, cursor: int) -> tuple[int, int, int]:
        for place, layer in enumerate(self._layers):
            here = layer.inputs() * len(layer.weight)
            if cursor < here:
                return place, cursor // len(layer.weight), cursor % len(layer.weight)
            cursor -= here
        raise AssertionError("the cursor is kept below the number of weights")

    def _name(self, place: int, given: int, unit: int) -> tuple[str, tuple[int, ...]]:
        layer = self._layers[place]
        if given == layer.weight.shape[1]:
            return f"{layer.name}.bias", (unit,)
        return f"{layer.name}.weight", (unit, given)

    def _given(self, place: int, given: int) -> np.ndarray:
        """What this input is for every image."""
        source = self._data if place == 0 else self._layers[place - 1].values
        return self._ones if given == len(source) else source[given]

    def _total(self, values: np.ndarray) -> float:
        """The loss added up over all images, from the last layer's values (activations or logits)."""
        if self.loss_name == "squared":
            return float(np.square(values - self._ideal).sum())
        top = values.max(0)
        return float((top + np.log(np.exp(values - top).sum(0)) - (values * self._ideal).sum(0)).sum())

    def _error(self) -> np.ndarray:
        """dLoss/d sum of the last layer, outputs × images, of the added-up loss."""
        last = self._layers[-1]
        if self.loss_name == "squared":
            return 2 * (last.values - self._ideal) * last.slope(last.values)
        scaled = np.exp(last.values - last.values.max(0))
        return scaled / scaled.sum(0) - self._ideal

    def _delta(self, place: int, unit: int) -> np.ndarray:
        """dLoss/d sum of one unit, for every image: the error sent back along the chain."""
        error = self._error()
        if place == len(self._layers) - 1:
            return error[unit]
        for later in range(len(self._layers) - 1, place + 1, -1):
            below = self._layers[later - 1]
            error = (self._layers[later].weight.T @ error) * below.slope(below.values)
        layer = self._layers[place]
        return (self._layers[place + 1].weight[:, unit] @ error) * layer.slope(layer.values[unit])

    def _try(self, place: int, given: int, unit: int, change: float) -> tuple[float, list[np.ndarray]]:
        """The added-up loss if this weight changed, and the new sums of the layers from here on."""
        layer = self._layers[place]
        sums = layer.sums[unit] + change * self._given(place, given)
        new = [sums]
        values = layer.act(sums)
        if place == len(self._layers) - 1:
            if self._separable:
                old = np.square(layer.values[unit] - self._ideal[unit]).sum()
                return self._loss - float(old) + float(np.square(values - self._ideal[unit]).sum()), new
            everything = layer.values.copy()
            everything[unit] = values
            return self._total(everything), new
        following = self._layers[place + 1]
        new.append(following.sums + np.outer(following.weight[:, unit], values - layer.values[unit]))
        values = following.act(new[-1])
        for later in self._layers[place + 2 :]:
            new.append(later.weight @ values + (0 if later.bias is None else later.bias[:, None]))
            values = later.act(new[-1])
        return self._total(values), new

    def _move(self, place: int, given: int, unit: int, rate: float) -> Hop:
        layer, images = self._layers[place], self._data.shape[1]
        column = layer.column(given)
        before, loss = float(column[unit]), self._loss
        slope = float(self._delta(place, unit) @ self._given(place, given)) / images
        change, tried = -rate * slope, []
        for _ in range(self.halvings + 1):
            if slope == 0:
                break
            # What the parameter's own precision makes of the hop is what is tried and kept.
            value = column.dtype.type(before + change)
            total, sums = self._try(place, given, unit, float(value) - before)
            tried.append((float(value), total / images))
            if total < loss:
                column[unit] = value
                self._keep(place, unit, sums, total)
                break
            change /= 2
        name, index = self._name(place, given, unit)
        return Hop(name, index, slope, tuple(tried), before, float(column[unit]), loss / images, self.loss)

    def _keep(self, place: int, unit: int, sums: list[np.ndarray], total: float) -> None:
        layer = self._layers[place]
        layer.sums[unit] = sums[0]
        layer.values[unit] = layer.act(sums[0])
        for later, new in zip(self._layers[place + 1 :], sums[1:], strict=False):
            later.sums, later.values = new, later.act(new)
        self._loss = total

    def _move_together(self, given: int, rate: float) -> None:
        """The same as `_move` for each output in turn: in a sum over outputs, no output's move changes another's."""
        layer, place = self._layers[-1], len(self._layers) - 1
        rows = self._inked[given] if place == 0 and given < len(self._inked) else None
        if rows is not None and len(rows) == 0:
            return
        pick = slice(None) if rows is None else rows
        ink, column = self._given(place, given)[pick], layer.column(given)
        sums, values, wanted = layer.sums[:, pick], layer.values[:, pick], self._ideal[:, pick]
        off = values - wanted
        slopes = (2 * off * layer.slope(values)) @ ink / self._data.shape[1]
        old = np.square(off).sum(1)
        change = -rate * slopes
        before = column.astype(np.float64)
        open_ = np.flatnonzero(slopes)
        for _ in range(self.halvings + 1):
            if len(open_) == 0:
                break
            value = (before[open_] + change[open_]).astype(column.dtype)
            new_sums = sums[open_] + np.outer(value.astype(np.float64) - before[open_], ink)
            new_values = layer.act(new_sums)
            lower = np.square(new_values - wanted[open_]).sum(1) < old[open_]
            done = open_[lower]
            column[done] = value[lower]
            sums[done], values[done] = new_sums[lower], new_values[lower]
            open_ = open_[~lower]
            change[open_] /= 2
        if rows is not None:
            layer.sums[:, rows], layer.values[:, rows] = sums, values


def _chain(module: nn.Module, shape: tuple[int, ...]) -> Iterator[_Layer]:
    """The Linear layers with their activations; anything else cannot be followed weight by weight."""
    leaves = [(n, m) for n, m in module.named_modules() if not any(True for _ in m.children())]
    leaves = [(n, m) for n, m in leaves if type(m).__name__ not in ("Flatten", "Dropout", "Identity")]
    width, none = shape[0], np.empty(0)
    for i, (name, part) in enumerate(leaves):
        if isinstance(part, nn.Linear) and part.in_features == width:
            width = part.out_features
            following = type(leaves[i + 1][1]).__name__ if i + 1 < len(leaves) else ""
            kind = following if following in _ACTIVATIONS else ""
            bias = None if part.bias is None else part.bias.detach().numpy()
            yield _Layer(name, part.weight.detach().numpy(), bias, kind, none, none)
        elif type(part).__name__ not in _ACTIVATIONS or i == 0:
            raise UsageError(
                f"One weight at a time cannot follow {name or type(part).__name__!r} ({type(part).__name__}).",
                "Use a chain of dense layers with sigmoid, tanh or relu, or another optimizer.",
            )
