from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..errors import UsageError
from .view import View, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Cell = str | float | int | None


@dataclass(frozen=True, slots=True, eq=False)
class Table(View):
    """Named columns and rows of numbers and words; `total` is a last row that sums up the others."""

    kind: ClassVar[str] = "table"
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    total: tuple[Cell, ...] = ()

    def __post_init__(self) -> None:
        for row in (*self.rows, *([self.total] if self.total else [])):
            if len(row) != len(self.columns):
                raise UsageError(
                    f"A row has {len(row)} cells, there are {len(self.columns)} columns.", "Fill each row."
                )

    def text(self) -> str:
        cells = [list(self.columns), *[[_cell(c) for c in row] for row in self.rows]]
        if self.total:
            cells.append([_cell(c) for c in self.total])
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.columns))]
        return "\n".join(
            [self.title, *("  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in cells)]
        )

    def draw(self, axes: Axes) -> None:
        axes.axis("off")
        rows = [[_cell(c) for c in row] for row in (*self.rows[:24], *([self.total] if self.total else []))]
        if rows:
            drawn = axes.table(rows, colLabels=self.columns, loc="upper left", edges="horizontal")
            drawn.auto_set_font_size(False)
            drawn.set_fontsize(7)
        if len(self.rows) > 24:
            axes.text(0, 0, f"the first 24 of {len(self.rows)} rows; all are in the data", transform=axes.transAxes)


def _cell(cell: Cell) -> str:
    return "" if cell is None else number(cell, 6) if isinstance(cell, float) else str(cell)
