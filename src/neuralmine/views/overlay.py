from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..errors import UsageError
from .picture import check_pixels
from .view import GOLD, GREEN, GROUND, RED, SIGNED, View, number, one_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True, eq=False)
class Overlay(View):
    """A map of numbers over the picture that it is about.

    `values` has rows × columns of its own, at most as many as the picture, and covers the whole of it; between the
    cells' centres it is drawn bilinearly. `scale` is "signed" (green +, red −) or "magnitude" (gold); a value covers
    the grey picture the more, the nearer it is to `limit`. Without a limit, that is the largest magnitude here.
    """

    kind: ClassVar[str] = "overlay"
    pixels: np.ndarray
    values: np.ndarray
    scale: str = "signed"
    limit: float | None = None

    def __post_init__(self) -> None:
        one_of("scale", self.scale, ("signed", "magnitude"))
        check_pixels(self.pixels, "An Overlay", (3,))
        rows, columns = self.pixels.shape[:2]
        if self.values.ndim != 2 or self.values.size == 0:
            raise UsageError(f"An Overlay needs rows × columns, not shape {self.values.shape}.", "Reshape the values.")
        if self.values.shape[0] > rows or self.values.shape[1] > columns:
            raise UsageError(
                f"A map of {self.values.shape[0]} × {self.values.shape[1]} is finer than its picture of {rows} × {columns}.",
                "Give the picture at least as many pixels as the map has cells.",
            )
        if not np.isfinite(self.values).all():
            raise UsageError("The map holds values that are not numbers or infinite.", "Find where they come from.")
        if self.scale == "magnitude" and self.values.min() < 0:
            raise UsageError(
                f"Magnitudes are not negative; the least here is {number(float(self.values.min()))}.",
                'Use scale="signed", or the absolute values.',
            )
        if self.limit is not None and not (math.isfinite(self.limit) and self.limit > 0):
            raise UsageError(f"The limit is {self.limit}.", "Give the value of the strongest colour, more than 0.")

    def text(self) -> str:
        (high, wide), (rows, columns) = self.values.shape, self.pixels.shape[:2]
        lines = [
            f"{self.title} ({high} × {wide} values over {rows} × {columns} pixels, {self.scale}, limit "
            f"{number(self._limit())}; each covers {number(rows / high)} × {number(columns / wide)} pixels, drawn bilinearly)"
        ]
        size = np.abs(self.values.astype(np.float64)).ravel()
        if not size.any():
            return "\n".join([*lines, f"all {size.size} values are 0"])
        if self.scale == "magnitude":
            lines.append(f"strongest: {self._place(int(self.values.argmax()))}")
        else:
            most, least = int(self.values.argmax()), int(self.values.argmin())
            lines.append(
                f"most positive: {self._place(most)}" if self.values.flat[most] > 0 else "most positive: none is"
            )
            lines.append(
                f"most negative: {self._place(least)}" if self.values.flat[least] < 0 else "most negative: none is"
            )
        top = math.ceil(size.size / 10)
        share = float(np.sort(size)[-top:].sum() / size.sum())
        lines.append(
            f"the strongest 10 % of values ({top} of {size.size}) hold {number(100 * share)} % of the absolute sum; "
            f"spread evenly it would be {number(100 * top / size.size)} %"
        )
        beyond = int((size > self._limit()).sum())
        if beyond:
            lines.append(f"{beyond} of {size.size} lie beyond the limit and are drawn as strong as it")
        return "\n".join(lines)

    def draw(self, axes: Axes) -> None:
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb

        rows, columns = self.pixels.shape[:2]
        limit, finer = self._limit(), max(1, math.ceil(320 / max(rows, columns)))
        grey = 0.4 + 0.6 * (self.pixels @ np.array([0.2126, 0.7152, 0.0722]))  # lifted: the map's colours are dark
        grey = np.repeat(np.repeat(grey, finer, 0), finer, 1)[..., None]
        drawn = (
            _between(rows * finer, self.values.shape[0])
            @ self.values
            @ _between(columns * finer, self.values.shape[1]).T
        )
        cover = 0.85 * np.clip(np.abs(drawn) / limit, 0, 1)[..., None]
        plus, minus = np.array(to_rgb(GREEN if self.scale == "signed" else GOLD)), np.array(to_rgb(RED))
        mixed = (1 - cover) * grey + cover * np.where(drawn[..., None] < 0, minus, plus)
        axes.imshow(mixed, interpolation="nearest", extent=(-0.5, columns - 0.5, rows - 0.5, -0.5))
        axes.set_xlabel("column")
        axes.set_ylabel("row")
        ramp = LinearSegmentedColormap.from_list(self.scale, SIGNED if self.scale == "signed" else [GROUND, GOLD])
        low = -limit if self.scale == "signed" else 0
        axes.figure.colorbar(ScalarMappable(Normalize(low, limit), ramp), ax=axes, shrink=0.8)

    def _place(self, index: int) -> str:
        """A value and where its cell's centre lies in the picture."""
        (high, wide), (rows, columns) = self.values.shape, self.pixels.shape[:2]
        down, across = (index // wide + 0.5) / high, (index % wide + 0.5) / wide
        return (
            f"{number(float(self.values.flat[index]))} at row {int(down * rows)}, column {int(across * columns)} "
            f"of the picture ({_words(down, across)})"
        )

    def _limit(self) -> float:
        return self.limit if self.limit is not None else float(np.abs(self.values).max()) or 1.0


def _words(down: float, across: float) -> str:
    high, wide = ("upper", "", "lower")[int(3 * down)], ("left", "", "right")[int(3 * across)]
    return f"{high} {wide}".strip() if high and wide else f"{high or wide} middle".strip() if high or wide else "centre"


def _between(drawn: int, given: int) -> np.ndarray:
    """drawn × given: how much of each given value is in each drawn one, the cells' centres at their places."""
    at = np.clip((np.arange(drawn) + 0.5) * given / drawn - 0.5, 0, given - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(given)))
