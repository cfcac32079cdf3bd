"""How sure a measured figure is: intervals of proportions and of paired differences, and what many tests cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def wilson(right: int, count: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % interval of a proportion (Wilson 1927).

    >>> [round(x, 3) for x in wilson(8, 10)]
    [0.49, 0.943]
    """
    share, spread = right / count, z * z / count
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * float(np.sqrt(share * (1 - share) / count + spread / (4 * count)))
    return middle - half, middle + half


def paired(differences: Sequence[float] | np.ndarray, overlap: float = 0.0) -> tuple[float, tuple[float, float], float]:
    """The mean of paired differences, its 95 % interval and the two-sided p (Student's t).

    `overlap` is test images ÷ training images where each pair comes from another random split of the same data: the
    splits share images, so the spread between them is too small, and the variance is (1/n + overlap) × s² instead of
    s²/n (Nadeau and Bengio 2003). All differences 0 is no difference at all: p is 1.

    >>> mean, interval, p = paired([1.0, 2.0, 3.0])
    >>> round(mean, 3), [round(x, 3) for x in interval], round(p, 4)
    (2.0, [-0.484, 4.484], 0.0742)
    """
    from scipy.stats import t

    values = np.asarray(differences, dtype=float)
    count, mean = len(values), float(values.mean())
    error = float(values.std(ddof=1) * np.sqrt(1 / count + overlap))
    half = float(t.ppf(0.975, count - 1)) * error
    p = 2 * float(t.sf(abs(mean) / error, count - 1)) if error > 0 else float(mean == 0)
    return mean, (mean - half, mean + half), p


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """The p-values of several tests, each raised so that all together err as rarely as one alone (Holm 1979).

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    values = np.asarray(p, dtype=float)
    order = np.argsort(values, kind="stable")
    raised = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    back = np.empty_like(values)
    back[order] = np.minimum(raised, 1.0)
    return back


def best_of(share: float, count: int, tries: int) -> float:
    """The accuracy that the best of so many equally good tries shows on `count` images: more than `share`, by luck alone.

    Exact for tries that err independently of each other; tries that err on the same images gain less.

    >>> round(best_of(0.95, 450, 1), 6), round(best_of(0.95, 450, 20), 3)
    (0.95, 0.968)
    """
    from scipy.stats import binom

    below = binom.cdf(np.arange(count), count, share) ** tries
    return float((1 - below).sum() / count)
