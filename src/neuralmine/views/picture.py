from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..errors import UsageError
from .view import GROUND, INK, View, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True, eq=False)
class Picture(View):
    """A picture as it is: rows × columns × 3 (red, green, blue) from 0 to 1. With one more axis in front, a sheet of
    pictures of one size; `names` then says what each of them is."""

    kind: ClassVar[str] = "picture"
    pixels: np.ndarray
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_pixels(self.pixels, "A Picture", (3, 4))
        count = len(self.pixels) if self.pixels.ndim == 4 else 0
        if self.names and len(self.names) != count:
            raise UsageError(
                f"There are {len(self.names)} names for a sheet of {count} pictures.",
                "Give one name for each picture of a sheet (n × rows × columns × 3); a single picture has its title.",
            )

    def text(self) -> str:
        rows, columns = self.pixels.shape[-3:-1]
        if self.pixels.ndim == 3:
            return f"{self.title} ({rows} × {columns} pixels, mean colour {mean_colour(self.pixels)})"
        lines = [f"{self.title} ({len(self.pixels)} pictures of {rows} × {columns} pixels)"]
        lines += [f"{self._name(i)}: mean colour {mean_colour(one)}" for i, one in enumerate(self.pixels)]
        return "\n".join(lines)

    def draw(self, axes: Axes) -> None:
        rows, columns = self.pixels.shape[-3:-1]
        if self.pixels.ndim == 3:
            axes.imshow(self.pixels, interpolation="nearest")
            axes.set_xlabel("column")
            axes.set_ylabel("row")
            return
        # A sheet: tiles on the ground, as many in a row as make the whole about 3 : 2.
        count = len(self.pixels)
        wide = min(count, max(1, round(math.sqrt(1.5 * count * rows / columns))))
        high = math.ceil(count / wide)
        gap = max(1, round(0.08 * max(rows, columns)))
        band = gap + (round(0.2 * max(rows, columns)) if self.names else 0)
        ground = np.array([int(GROUND[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        sheet = np.tile(ground, (high * (rows + band), wide * (columns + gap), 1))
        letters = max(3, round(60 / wide))
        for i, one in enumerate(self.pixels):
            top, left = (i // wide) * (rows + band) + band, (i % wide) * (columns + gap)
            sheet[top : top + rows, left : left + columns] = one
            if self.names:
                name = self.names[i] if len(self.names[i]) <= letters else self.names[i][: letters - 1] + "…"
                axes.text(left - 0.5, top - 0.5 - 0.2 * gap, name, fontsize=max(3, 8 - wide // 3), color=INK)
        axes.imshow(sheet, interpolation="nearest")
        axes.axis("off")

    def _name(self, index: int) -> str:
        return self.names[index] if self.names else f"picture {index}"


def check_pixels(pixels: np.ndarray, what: str, dims: tuple[int, ...]) -> None:
    """Refuse what is no picture of red, green and blue from 0 to 1 in `dims` dimensions."""
    if pixels.ndim not in dims or pixels.shape[-1] != 3 or pixels.size == 0:
        forms = {3: "rows × columns × 3", 4: "n × rows × columns × 3"}
        raise UsageError(
            f"{what} needs pixels as {' or '.join(forms[d] for d in dims)}, not shape {pixels.shape}.",
            "Put the three colours last, with pixels.transpose(1, 2, 0); repeat a grey picture three times.",
        )
    if pixels.dtype not in (np.float32, np.float64):
        raise UsageError(f"{what} needs floats from 0 to 1, not {pixels.dtype}.", "Divide 0 … 255 by 255.0.")
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 1):  # also refuses what is not a number
        raise UsageError(
            f"{what} needs pixels from 0 to 1; these go from {number(low)} to {number(high)}.",
            "Undo the network's normalisation, or rescale and say so in the title.",
        )


def mean_colour(pixels: np.ndarray) -> str:
    """The mean of red, green and blue, as it is printed."""
    means = pixels.mean(axis=(0, 1), dtype=np.float64)
    return " ".join(f"{letter} {number(float(mean), 2)}" for letter, mean in zip("RGB", means, strict=True))
