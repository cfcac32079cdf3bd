from __future__ import annotations

import numpy as np

from ..lens import look
from ..networks.catalogue import data_of, load_preset
from ..networks.edited import edited
from ..progress import over
from ..types import Check, Finding, Network, Verdict
from ..views import Table


def one_or_zero(*, seed: int = 0) -> Verdict:
    """Do hand-made weights tell a 1 from a 0, and where must the line be drawn?

    Nine patterns of the kind the essay describes (middle positive, around negative), none of them trained: accuracy at
    the threshold 0.5, with a threshold fitted on one half and tested on the other (20 splits), area under the ROC
    curve, and accuracy of the two-output net with the inverse weights. All on the bundled 0s and 1s.
    """
    data = data_of("64-1")
    rows = []
    for name, pattern in over(patterns().items(), "pattern"):
        one = look("threshold", _with(load_preset("64-1"), [pattern]), data, seed=seed)
        two = look("confusion", _with(load_preset("64-2"), [-pattern, pattern]), data, seed=seed)
        fitted = one.numbers["fitted"][:, 1]
        row = (
            one.numbers["accuracy_at"],
            fitted.mean(),
            fitted.std(ddof=1),
            one.numbers["auc"],
            two.numbers["accuracy"],
        )
        rows.append((name, *(float(value) for value in row)))
    at, fitted, _, area, two = (np.array([row[i] for row in rows]) for i in range(1, 6))
    frequent = float(max(np.mean(data.labels), 1 - np.mean(data.labels)))
    same = bool(np.array_equal(at, two))
    columns = ("weights", "right at 0.5", "right, fitted", "± sd", "ROC area", "two outputs")
    finding = Finding(
        {"at": at, "fitted": fitted, "auc": area, "two_outputs": two},
        (Table("nine patterns, none trained", columns, tuple(rows)),),
        (
            Check("worst fitted accuracy of the nine", float(fitted.min()), frequent, None, bool(fitted.min() > frequent),
                  "Against always saying the more frequent digit."),
            Check("two outputs say the same as one", float(np.abs(at - two).max()), None, None, same,
                  "Largest difference of accuracy between the one-output net at 0.5 and the two-output net."),
        ),
        "The same weights are right in as few as half or nearly all cases, depending on where the line is drawn.",
    )  # fmt: skip
    return Verdict(
        "second layer neuron values that are larger than a certain number (not necessarily 0.5) mean that the image is probably a 1",
        "Behind the Eyeballs of AI (2020)",
        "A threshold fitted on some images is right on others, well above always saying the more frequent digit.",
        f"fitted: {100 * fitted.min():.1f} to {100 * fitted.max():.1f} % right over nine patterns (20 splits each); at 0.5: "
        f"{100 * at.min():.1f} to {100 * at.max():.1f} %. Two outputs: {'identical to one at 0.5' if same else 'different'} in all nine.",
        f"{100 * frequent:.1f} % for always saying the more frequent digit",
        "holds" if finding.checks[0].passed else "partly",
        finding,
    )


def patterns() -> dict[str, np.ndarray]:
    """The nine hand-made weightings, 8 × 8 each."""
    middle = slice(2, 6)

    def made(inside: float, rest: float, rows: slice, columns: slice | list[int]) -> np.ndarray:
        weights = np.full((8, 8), rest)
        weights[rows, columns] = inside
        return weights

    ring = np.zeros((8, 8))
    ring[[0, -1], :] = ring[:, [0, -1]] = -1
    ring[middle, 3:5] = 1
    sides = made(-1, 0, slice(0, 8), [1, 2, 5, 6])
    sides[middle, 3:5] = 1
    row, column = np.mgrid[:8, :8]
    distance = np.hypot(row - 3.5, column - 3.5)
    return {
        "inner 4 × 4 +1, rest −1 (the essay's words)": made(1, -1, middle, middle),
        "inner 4 rows × 2 columns +1, rest −1": made(1, -1, middle, slice(3, 5)),
        "columns 3 and 4 +1, rest −1": made(1, -1, slice(0, 8), slice(3, 5)),
        "inner 4 × 2 +1, border −1, else 0": ring,
        "inner 2 × 2 +1, rest −1": made(1, -1, slice(3, 5), slice(3, 5)),
        "inner 4 × 2 +1, columns 1, 2, 5, 6 −1": sides,
        "falling with distance from the middle": 1 - 2 * distance / distance.max(),
        "inner 4 × 4 +3, rest −1 (adds up to 0)": made(3, -1, middle, middle),
        "inner 2 × 2 +15, rest −1 (adds up to 0)": made(15, -1, slice(3, 5), slice(3, 5)),
    }


def _with(network: Network, sheets: list[np.ndarray]) -> Network:
    changes = [((unit, i), float(v)) for unit, sheet in enumerate(sheets) for i, v in enumerate(sheet.ravel())]
    return edited(network, weights={"output.sum.weight": changes})
