from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..errors import UsageError
from .view import GOLD, GROUND, INK, SERIES, View, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEVELS = 12


@dataclass(frozen=True, slots=True, eq=False)
class Surface(View):
    """Heights `z` (rows of y × columns of x) as a contour map.

    `mark` is the place worth pointing at, `path` (steps × 2) a way across it. The levels lie at equal shares of the
    values, so that flat and steep parts both show; what is not a number or infinite stays bare.
    """

    kind: ClassVar[str] = "surface"
    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    x_label: str = "x"
    y_label: str = "y"
    z_label: str = "loss"
    mark: tuple[float, float] | None = (0.0, 0.0)
    path: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.x.ndim != 1 or self.y.ndim != 1 or self.z.shape != (len(self.y), len(self.x)):
            raise UsageError(
                f"A Surface of {self.z.shape} heights does not fit {len(self.y)} rows of y and {len(self.x)} columns of x.",
                "Give one height for each y and x.",
            )
        if len(self.x) < 2 or len(self.y) < 2:
            raise UsageError("A Surface needs at least 2 × 2 heights.", "Use Lines for one direction.")
        for name, axis in (("x", self.x), ("y", self.y)):
            if not np.isfinite(axis).all() or not (np.diff(axis) > 0).all():
                raise UsageError(f"The places along {name} do not rise.", "Give them in order, each once.")
        if self.mark is not None and (len(self.mark) != 2 or not np.isfinite(self.mark).all()):
            raise UsageError(f"{self.mark} marks no place.", "Give x and y.")
        if self.path is not None and (self.path.ndim != 2 or self.path.shape[1] != 2):
            raise UsageError(f"A path is steps × 2, not {self.path.shape}.", "Give x and y of each step.")

    def text(self) -> str:
        rows, columns = self.z.shape
        lines = [
            f"{self.title} ({self.z_label} at {columns} × {rows} places; {self.x_label} {number(self.x[0])} to "
            f"{number(self.x[-1])}, {self.y_label} {number(self.y[0])} to {number(self.y[-1])})"
        ]
        finite = np.isfinite(self.z)
        if not finite.any():
            return "\n".join([*lines, f"none of the {self.z.size} values is a finite number"])
        low = int(np.where(finite, self.z, np.inf).argmin())
        high = int(np.where(finite, self.z, -np.inf).argmax())
        lines += [f"lowest: {self._place(low)}", f"highest: {self._place(high)}"]
        if self.mark is not None:
            i, j = int(np.abs(self.y - self.mark[1]).argmin()), int(np.abs(self.x - self.mark[0]).argmin())
            lines.append(f"at the mark or nearest to it: {self._place(i * columns + j)}")
            for name, values, axis in (("x", self.z[i], self.x), ("y", self.z[:, j], self.y)):
                picked = np.unique(np.linspace(0, len(values) - 1, min(5, len(values))).round().astype(int))
                said = ", ".join(f"{number(float(values[k]))} at {number(float(axis[k]))}" for k in picked)
                lines.append(f"along {name} through it: {said}")
        if self.path is not None and len(self.path):
            lines.append(
                f"a path of {len(self.path)} steps from ({number(self.path[0, 0])}, {number(self.path[0, 1])}) "
                f"to ({number(self.path[-1, 0])}, {number(self.path[-1, 1])})"
            )
        if not finite.all():
            lines.append(f"{int((~finite).sum())} of {self.z.size} values are not finite numbers")
        return "\n".join(lines)

    def levels(self) -> np.ndarray:
        """Where the contour lines run: equal shares of the finite values lie between them."""
        finite = self.z[np.isfinite(self.z)].astype(np.float64)
        if not finite.size:
            return np.zeros(0)
        return np.unique(np.quantile(finite, np.arange(1, LEVELS) / LEVELS))

    def draw(self, axes: Axes) -> None:
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import BoundaryNorm, LinearSegmentedColormap

        finite = np.isfinite(self.z)
        axes.set_xlabel(self.x_label)
        axes.set_ylabel(self.y_label)
        axes.set_xlim(self.x[0], self.x[-1])
        axes.set_ylim(self.y[0], self.y[-1])
        axes.locator_params(axis="x", nbins=5)
        ramp = LinearSegmentedColormap.from_list("gold", [GROUND, GOLD, INK])
        if finite.any():
            low, high = float(self.z[finite].min()), float(self.z[finite].max())
            edges = np.unique([low, *self.levels(), high])
            heights = np.ma.masked_invalid(self.z)
            if len(edges) > 2:
                norm = BoundaryNorm(list(edges), 256)
                axes.contourf(self.x, self.y, heights, levels=edges, cmap=ramp, norm=norm)
                axes.contour(self.x, self.y, heights, levels=edges[1:-1], colors=INK, linewidths=0.4)
                bar = axes.figure.colorbar(
                    ScalarMappable(norm, ramp),
                    ax=axes,
                    shrink=0.8,
                    ticks=list(edges[:: max(1, len(edges) // 6)]),
                    label=self.z_label,
                )
                bar.ax.yaxis.set_major_formatter(lambda value, _: number(value))
        if self.path is not None:
            axes.plot(self.path[:, 0], self.path[:, 1], color=SERIES[4], linewidth=1.2, marker=".", markersize=3)
        if self.mark is not None:
            axes.plot([self.mark[0]], [self.mark[1]], marker="+", color=SERIES[3], markersize=10, markeredgewidth=1.8)

    def _place(self, index: int) -> str:
        row, column = divmod(index, len(self.x))
        return (
            f"{number(float(self.z.flat[index]), 5)} at ({number(float(self.x[column]))}, {number(float(self.y[row]))})"
        )
