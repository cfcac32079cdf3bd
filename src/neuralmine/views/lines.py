from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..errors import UsageError
from .view import DASHES, SERIES, View, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True, eq=False)
class Lines(View):
    """Named curves over one x; colours and dashes both tell them apart. `mark` is an x worth pointing at; `log` scales both axes."""

    kind: ClassVar[str] = "lines"
    x: np.ndarray
    series: Mapping[str, np.ndarray]
    x_label: str = ""
    y_label: str = ""
    mark: float | None = None
    log: bool = False

    def __post_init__(self) -> None:
        for name, values in self.series.items():
            if len(values) != len(self.x):
                raise UsageError(
                    f"Curve {name!r} has {len(values)} points, x has {len(self.x)}.", "Give one y for each x."
                )

    def text(self) -> str:
        lines = [f"{self.title}: {self.y_label} by {self.x_label}, {len(self.x)} points"]
        for name, values in self.series.items():
            if len(values):
                low, high = int(np.nanargmin(values)), int(np.nanargmax(values))
                lines.append(
                    f"{name}: from {number(values[0])} to {number(values[-1])}; lowest {number(values[low])} at "
                    f"{number(self.x[low])}, highest {number(values[high])} at {number(self.x[high])}"
                )
        return "\n".join(lines)

    def draw(self, axes: Axes) -> None:
        for i, (name, values) in enumerate(self.series.items()):
            axes.plot(self.x, values, label=name, color=SERIES[i % 8], linestyle=DASHES[i % 4], linewidth=1.4)
        if self.mark is not None:
            axes.axvline(self.mark, color=SERIES[1], linewidth=0.8)
        if self.log:
            axes.set_xscale("log")
            axes.set_yscale("log")
        axes.set_xlabel(self.x_label)
        axes.set_ylabel(self.y_label)
        if len(self.series) > 1:
            axes.legend(frameon=False)
