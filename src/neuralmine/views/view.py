"""What all views share: a title, a drawing on matplotlib axes, and pictures made of it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The light theme's tokens (web/src/tokens.css): a thing has one colour on the page and in pictures.
GREEN, RED, GROUND, GOLD, INK = "#1f7a4d", "#b3392f", "#f4efe5", "#9a6c00", "#2b2721"
SIGNED = [RED, GROUND, GREEN]
SERIES = ["#2b2721", "#ae7c02", "#158859", "#a62f29", "#0c6bb1", "#562f73", "#065759", "#542805"]
DASHES = ["-", "--", ":", "-."]


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """Data to be shown in one way, the same everywhere: page, notebook, terminal and report."""

    kind: ClassVar[str] = ""
    title: str

    def text(self) -> str:
        """The same in words and figures."""
        raise TypeError(f"{type(self).__name__} has no text form")

    def draw(self, axes: Axes) -> None:
        """Draw on matplotlib axes."""
        raise TypeError(f"{type(self).__name__} cannot be drawn")

    def to_svg(self) -> str:
        """The view as an SVG picture; the same view gives the same bytes."""
        with _figure(self) as figure:
            buffer = io.StringIO()
            figure.savefig(buffer, format="svg", metadata={"Date": None})
        return buffer.getvalue()

    def to_png(self) -> bytes:
        """The view as a PNG picture, 144 dots to the inch."""
        with _figure(self) as figure:
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=144, metadata={"Software": "neuralmine"})
        return buffer.getvalue()


@contextmanager
def _figure(view: View) -> Iterator[Any]:
    # The object interface: pyplot would keep state and choose a screen backend.
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "neuralmine", "font.size": 9, "axes.spines.top": False}):
        figure = Figure(figsize=(5, 3.4), facecolor=GROUND, layout="constrained")
        axes = figure.add_subplot(facecolor=GROUND)
        axes.set_title(view.title, loc="left", color=INK)
        axes.spines["right"].set_visible(False)
        view.draw(axes)
        yield figure


def one_of(kind: str, given: str, allowed: tuple[str, ...]) -> None:
    if given not in allowed:
        raise UsageError(f"{kind} {given!r} is not known.", f"Use one of {', '.join(allowed)}.")


def number(value: float, digits: int = 3) -> str:
    """A figure as it is printed: `digits` significant digits and a true minus sign."""
    return f"{value + 0.0:.{digits}g}".replace("-", "−")  # + 0.0 makes a plain 0 of −0
