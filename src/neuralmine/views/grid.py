from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..errors import UsageError
from .view import GOLD, GROUND, INK, SIGNED, View, number, one_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True, eq=False)
class Grid(View):
    """A rectangle of numbers as cells: rows × columns.

    `scale` is "signed" (green +, red −), "magnitude" (ground to gold) or "ink" (white to black); `limit` is the
    value of the brightest cell, stated so that grids can be compared. Without it, the largest magnitude here.
    """

    kind: ClassVar[str] = "grid"
    values: np.ndarray
    scale: str = "signed"
    limit: float | None = None
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        one_of("scale", self.scale, ("signed", "magnitude", "ink"))
        if self.values.ndim != 2:
            raise UsageError(f"A Grid needs rows × columns, not shape {self.values.shape}.", "Reshape the values.")

    def text(self) -> str:
        lines = [
            f"{self.title} ({self.values.shape[0]} × {self.values.shape[1]}, {self.scale}, limit {number(self._limit())})"
        ]
        width = max((len(number(v)) for v in self.values.flat), default=1) + 1
        names = max((len(r) for r in self.rows), default=0)
        if self.columns:
            lines.append(" " * names + "".join(c[: width - 1].rjust(width) for c in self.columns))
        for i, row in enumerate(self.values):
            name = self.rows[i] if self.rows else ""
            lines.append(name.ljust(names) + "".join(number(v).rjust(width) for v in row))
        return "\n".join(lines)

    def draw(self, axes: Axes) -> None:
        from matplotlib.colors import LinearSegmentedColormap

        limit = self._limit()
        colours = {"signed": SIGNED, "magnitude": [GROUND, GOLD], "ink": ["#ffffff", INK]}[self.scale]
        ramp = LinearSegmentedColormap.from_list(self.scale, colours)
        low = -limit if self.scale == "signed" else 0
        image = axes.imshow(self.values, cmap=ramp, vmin=low, vmax=limit, interpolation="nearest")
        axes.figure.colorbar(image, ax=axes, shrink=0.8)
        axes.set_xticks(range(len(self.columns)), self.columns)
        axes.set_yticks(range(len(self.rows)), self.rows)
        rows, columns = self.values.shape
        if self.scale == "signed" and rows <= 16 and columns <= 16:
            for (i, j), value in np.ndenumerate(self.values):
                if abs(value) > 0.05 * limit:
                    axes.text(j, i, "+" if value > 0 else "−", ha="center", va="center", color=INK, fontsize=6)

    def _limit(self) -> float:
        if self.limit is not None:
            return self.limit
        return float(np.abs(self.values).max(initial=0)) or 1.0
