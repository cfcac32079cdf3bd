from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..errors import UsageError
from .view import GOLD, GREEN, INK, RED, View, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True, eq=False)
class Bars(View):
    """One labelled bar a value; `highlight` is the index of the one that matters, `limit` the length of the scale."""

    kind: ClassVar[str] = "bars"
    labels: tuple[str, ...]
    values: np.ndarray
    highlight: int | None = None
    unit: str = ""
    limit: float | None = None
    signed: bool = False

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.values):
            raise UsageError(f"{len(self.labels)} labels for {len(self.values)} bars.", "Give one label for each bar.")

    def text(self) -> str:
        limit = self.limit or float(np.abs(self.values).max(initial=0)) or 1.0
        names = max((len(label) for label in self.labels), default=0)
        lines = [self.title + (f" ({self.unit})" if self.unit else "")]
        for i, (label, value) in enumerate(zip(self.labels, self.values, strict=True)):
            bar = "█" * round(24 * min(abs(value) / limit, 1))
            mark = " ◄" if i == self.highlight else ""
            lines.append(f"{label.rjust(names)} {number(value).rjust(8)} {'−' if value < 0 else ''}{bar}{mark}")
        return "\n".join(lines)

    def draw(self, axes: Axes) -> None:
        places = np.arange(len(self.values))[::-1]
        colours = [(GREEN if v >= 0 else RED) if self.signed else INK for v in self.values]
        if self.highlight is not None and not self.signed:
            colours[self.highlight] = GOLD
        axes.barh(places, self.values, color=colours)
        axes.set_yticks(places, self.labels)
        axes.set_xlabel(self.unit)
        if self.limit:
            axes.set_xlim(-self.limit if self.signed else 0, self.limit)
