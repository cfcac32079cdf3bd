from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

from ..errors import UsageError
from .view import GROUND, INK, View

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Sizes in hundredths of an inch: a box, the band that a passing edge keeps free, gaps between them, a row.
_BOX, _JOIN, _BAND, _GAP, _ROW = 150, 60, 16, 14, 42


@dataclass(frozen=True, slots=True, eq=False)
class Graph(View):
    """What feeds what: `nodes` are (name, label, detail), `edges` pairs of names. A node without detail is a mere join.

    `rank` is the row of each node, from 0; when left out it is the longest path that leads there.
    """

    kind: ClassVar[str] = "graph"
    nodes: tuple[tuple[str, str, str], ...]
    edges: tuple[tuple[str, str], ...]
    rank: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        names = [name for name, _, _ in self.nodes]
        known = dict(zip(names, self.ranks(), strict=False))
        if len(known) != len(names) or len(self.rank) not in (0, len(names)):
            raise UsageError(
                f"{len(names)} nodes have {len(known)} names and {len(self.rank)} rows.",
                "Give each node a name of its own, and a row for each or for none.",
            )
        for source, target in self.edges:
            if known[source] >= known[target]:
                raise UsageError(
                    f"The edge {source!r} to {target!r} does not lead down: rows {known[source]} and {known[target]}.",
                    "Give what feeds a lower row than what is fed.",
                )

    def ranks(self) -> tuple[int, ...]:
        """The row of each node."""
        return self.rank or longest_paths([name for name, _, _ in self.nodes], self.edges)

    def text(self) -> str:
        said = {name: name or label for name, label, _ in self.nodes}
        fed: dict[str, list[str]] = {name: [] for name in said}
        for source, target in self.edges:
            fed[target].append(said[source])
        lines = [f"{self.title} ({len(self.nodes)} nodes, {len(self.edges)} edges)"]
        for name, _, detail in self.nodes:
            line = f"{said[name]} ({detail})" if detail else said[name]
            lines.append(f"{line} ← {', '.join(fed[name])}" if fed[name] else line)
        return "\n".join(lines)

    def draw(self, axes: Axes) -> None:
        axes.axis("off")
        if not self.nodes:
            return
        names = [name for name, _, _ in self.nodes]
        widths = [_BOX if detail else _JOIN for _, _, detail in self.nodes]
        at, paths = _placed(names, widths, self.edges, self.ranks())
        left = min(x - width / 2 for (x, _), width in zip(at, widths, strict=True))
        right = max(x + width / 2 for (x, _), width in zip(at, widths, strict=True))
        for path in paths:
            left, right = min(left, *(x for x, _ in path)), max(right, *(x for x, _ in path))
        deep = max(self.ranks()) + 1
        if axes.figure is not None:
            size = max(5.0, min((right - left) / 100 + 0.3, 400)), max(3.4, min(deep * _ROW / 100 + 0.5, 400))
            axes.get_figure(root=True).set_size_inches(*size)  # type: ignore[union-attr]
        axes.set_xlim(left - _GAP, right + _GAP)
        axes.set_ylim(deep * _ROW - _ROW / 2, -_ROW / 2)
        axes.set_aspect("equal")
        for path in paths:
            _draw_path(axes, path)
        for (x, y), (_, label, detail), width in zip(at, self.nodes, widths, strict=True):
            most = width // 6
            shown = label if len(label) <= most else f"…{label[1 - most :]}"
            words = f"{shown}\n{detail[:most]}" if detail else shown
            shape = {"boxstyle": "round,pad=0.2", "facecolor": GROUND, "edgecolor": INK, "linewidth": 0.6}
            axes.text(x, y, words, ha="center", va="center", fontsize=5.5, color=INK, bbox=shape, linespacing=1.1)


def longest_paths(names: Sequence[str], edges: Sequence[tuple[str, str]]) -> tuple[int, ...]:
    """For each node, how many edges the longest path has that leads there.

    Raises UsageError for edges in a circle, or of nodes that are not among the names.

    >>> longest_paths("abc", [("a", "b"), ("b", "c"), ("a", "c")])
    (0, 1, 2)
    """
    feeds: dict[str, list[str]] = {name: [] for name in names}
    open_ends = dict.fromkeys(names, 0)
    for source, target in edges:
        if source not in feeds or target not in feeds:
            raise UsageError(
                f"The edge {source!r} to {target!r} has an end that is no node.", "Give a node for each end."
            )
        feeds[source].append(target)
        open_ends[target] += 1
    rank = dict.fromkeys(names, 0)
    ready = [name for name in feeds if not open_ends[name]]
    for name in ready:  # grows while it is walked
        for target in feeds[name]:
            rank[target] = max(rank[target], rank[name] + 1)
            open_ends[target] -= 1
            if not open_ends[target]:
                ready.append(target)
    if len(ready) < len(feeds):
        raise UsageError("These edges go in a circle.", "A graph is drawn from what comes first to what comes last.")
    return tuple(rank[name] for name in names)


# ── Where everything is drawn; web/src/views/Graph.svelte does the same ──

_Point = tuple[float, float]


def _placed(
    names: Sequence[str], widths: Sequence[float], edges: Sequence[tuple[str, str]], ranks: Sequence[int]
) -> tuple[list[_Point], list[list[_Point]]]:
    """The middle of each node, and the points that each edge goes through.

    An edge keeps a band free in every row that it passes. Rows are put in order by the means of their neighbours
    (barycentres), then each thing is drawn to its neighbours as far as the order and the widths allow.
    """
    count, place = len(names), {name: i for i, name in enumerate(names)}
    wide, row = list(widths), list(ranks)
    chains: list[list[int]] = []
    for source, target in edges:
        chain = [place[source]]
        for passed in range(row[place[source]] + 1, row[place[target]]):
            chain.append(len(wide))
            wide.append(_BAND)
            row.append(passed)
        chains.append([*chain, place[target]])
    above: list[list[int]] = [[] for _ in wide]
    below: list[list[int]] = [[] for _ in wide]
    for chain in chains:
        for one, other in pairwise(chain):
            below[one].append(other)
            above[other].append(one)
    rows: list[list[int]] = [[] for _ in range(max(row) + 1)]
    for thing, there in enumerate(row):
        rows[there].append(thing)
    x = [0.0] * len(wide)
    for things in rows:
        _spread(things, wide, x)
    for sweep in range(12):
        near, order = (above, rows) if sweep % 2 == 0 else (below, rows[::-1])
        for things in order:
            things.sort(key={t: sum(x[o] for o in near[t]) / len(near[t]) if near[t] else x[t] for t in things}.get)  # type: ignore[arg-type]
            _spread(things, wide, x)

    # What follows one another and nothing else is to stand in one line: boxes, and the bands of one edge. Lines of
    # boxes are drawn to the boxes that they feed or are fed by, bands to the ends of their edge.
    fed: list[list[int]] = [[] for _ in wide]
    feeds: list[list[int]] = [[] for _ in wide]
    for chain in chains:
        for one, other in [(chain[0], chain[-1]), *pairwise(chain[1:-1])]:
            feeds[one].append(other)
            fed[other].append(one)
    line = list(range(len(wide)))
    for things in rows:
        for thing in things:
            if len(fed[thing]) == 1 and len(feeds[fed[thing][0]]) == 1:
                line[thing] = line[fed[thing][0]]
    members: dict[int, list[int]] = {}
    for thing, first in enumerate(line):
        members.setdefault(first, []).append(thing)
    around = {
        first: [
            other
            for thing in things
            for other in (fed[thing] + feeds[thing] if thing < count else above[thing] + below[thing])
            if line[other] != first
        ]
        for first, things in members.items()
    }
    goal = {first: x[first] for first in members}
    for turn in range(100):
        if turn % 4 == 0 and turn < 92:
            goal = {
                first: (at + sum(x[o] for o in around[first]) / len(around[first])) / 2 if around[first] else at
                for first, at in goal.items()
            }
        else:  # where a line was pushed aside in one row, the whole of it steps aside
            goal = {first: max((x[t] for t in members[first]), key=lambda v: abs(v - at)) for first, at in goal.items()}
        if turn == 92:
            for first, others in around.items():
                # What is all but in one line with something before it is put in one line with it.
                lines = (line[other] for other in others if line[other] < first < count)
                goal[first] = next((goal[o] for o in lines if abs(goal[o] - goal[first]) < _GAP / 2), goal[first])
        for things in rows:
            _spread(things, wide, x, [goal[line[t]] for t in things], [1000 if t < count else 1 for t in things])
    points = [(x[i], row[i] * float(_ROW)) for i in range(len(wide))]
    return points[:count], [[points[i] for i in chain] for chain in chains]


def _spread(
    things: list[int], wide: list[float], x: list[float], wanted: Sequence[float] = (), weights: Sequence[float] = ()
) -> None:
    """Put one row, in its order, as near to what is wanted as the widths allow (least squares); else in the middle."""
    if not things:
        return
    offsets = [0.0]
    for one, other in pairwise(things):
        offsets.append(offsets[-1] + (wide[one] + wide[other]) / 2 + _GAP)
    if not wanted:
        for thing, offset in zip(things, offsets, strict=True):
            x[thing] = offset - offsets[-1] / 2
        return
    pools: list[tuple[float, float, int]] = []  # mean, weight, how many: those that touch move together
    for goal, offset, weight in zip(wanted, offsets, weights, strict=True):
        mean, heavy, many = goal - offset, float(weight), 1
        while pools and pools[-1][0] >= mean:
            before, weighed, more = pools.pop()
            mean, heavy, many = (before * weighed + mean * heavy) / (weighed + heavy), weighed + heavy, many + more
        pools.append((mean, heavy, many))
    means = [mean for mean, _, many in pools for _ in range(many)]
    for thing, mean, offset in zip(things, means, offsets, strict=True):
        x[thing] = mean + offset


def _draw_path(axes: Axes, path: list[_Point]) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    points, codes = [path[0]], [Path.MOVETO]
    for (x, y), (to_x, to_y) in pairwise(path):
        half = (y + to_y) / 2
        points += [(x, half), (to_x, half), (to_x, to_y)]
        codes += [Path.CURVE4] * 3
    axes.add_patch(PathPatch(Path(points, codes), fill=False, edgecolor=INK, linewidth=0.8, alpha=0.8))
