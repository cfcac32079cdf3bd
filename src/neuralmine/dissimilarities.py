"""Dissimilarities that others measured (in brains, by judgement, in another model): read from files, and how far they agree."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from .codes import rank_vector
from .errors import DataError, UnknownName

_SAVE = "Save pictures × pictures, subjects × pictures × pictures, or condensed rows, as .npy, .npz, .csv or .mat."


def measured(path: Path | str, name: str = "") -> np.ndarray:
    """The dissimilarities in a file, subjects × pairs: the upper triangle row by row, as scipy's `squareform` has it.

    What the file may hold: pictures × pictures; subjects × pictures × pictures (or the subjects last, as MATLAB users
    have it); one condensed row; subjects × pairs. In a .mat file also structs with a field RDM: each is a subject, and
    in an array of subjects × sessions the sessions are averaged.
    name: which array of a .npz or .mat file, or which struct by its field `name`; needed when there are several.

    Raises DataError for what is no such file, not symmetric, not finite, all the same, or similarities;
    UnknownName for a name that is not in it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/mine.npy", np.array([[0, 1, 2], [1, 0, 3], [2, 3, 0]]))
    ...     measured(f"{folder}/mine.npy").tolist()
    [[1.0, 2.0, 3.0]]
    """
    path = Path(path).expanduser()
    try:
        found = _opened(path, name)
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        if isinstance(error, (DataError, UnknownName)):
            raise
        what = "is no file" if not path.is_file() else f"cannot be read: {error}"
        raise DataError(f"{path} {what}.", _SAVE) from None
    pairs = _condensed(np.asarray(found, dtype=np.float64), path.name)
    if not np.isfinite(pairs).all():
        raise DataError(
            f"{path.name} has {int((~np.isfinite(pairs)).sum())} dissimilarities that are no finite numbers.",
            "Leave out the pictures or subjects they belong to.",
        )
    if (pairs.min(1) == pairs.max(1)).any():
        raise DataError(f"All dissimilarities of a subject in {path.name} are the same: nothing to compare.", _SAVE)
    return pairs


def size(pairs: int) -> int:
    """How many pictures have so many pairs; 0 where no number has.

    >>> size(4186), size(5)
    (92, 0)
    """
    count = round((1 + (1 + 8 * pairs) ** 0.5) / 2)
    return count if count * (count - 1) // 2 == pairs else 0


def places(count: int) -> np.ndarray:
    """Pictures × pictures: where in a condensed row each pair stands (the diagonal says 0, and is nobody's)."""
    found = np.zeros((count, count), dtype=np.int64)
    upper = np.triu_indices(count, 1)
    found[upper] = np.arange(len(upper[0]))
    return found + found.T


def ceiling(subjects: np.ndarray) -> tuple[float, float] | None:
    """The noise ceiling: what the true code would reach, at least and at most; None for one subject.

    The mean over subjects of Spearman's correlation with the mean ranks of the others (at least) and of all (at
    most). Source: Nili and others (2014), "A toolbox for representational similarity analysis".
    """
    if len(subjects) < 2:
        return None
    from scipy.stats import rankdata

    ranks = np.asarray(rankdata(subjects, axis=1))  # halves, so that sums which tie do so exactly
    whole = ranks.sum(0)
    at_least = np.mean([rank_vector(one) @ rank_vector(whole - one) for one in ranks])
    return float(at_least), float(np.mean([rank_vector(one) @ rank_vector(whole) for one in ranks]))


def tau_a(one: np.ndarray, other: np.ndarray) -> float:
    """Kendall's τ of kind a: pairs in the same order less pairs in the other, over all; a tie is neither."""
    from scipy.stats import kendalltau

    def untied(values: np.ndarray) -> float:
        _, counts = np.unique(values, return_counts=True)
        return len(values) * (len(values) - 1) / 2 - float((counts * (counts - 1) / 2).sum())

    # τ-b divides by the pairs that neither list ties; τ-a by all.
    kind_b = float(kendalltau(one, other).statistic)
    return kind_b * (untied(one) * untied(other)) ** 0.5 / (len(one) * (len(one) - 1) / 2)


def _opened(path: Path, name: str) -> Any:
    kind = path.suffix.lower()
    if kind == ".npy":
        return np.load(path, allow_pickle=False)
    if kind in (".csv", ".tsv", ".txt"):
        return np.loadtxt(path, delimiter={".csv": ",", ".tsv": "\t"}.get(kind), ndmin=2)
    if kind == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            held: dict[str, Any] = dict(arrays)
    elif kind == ".mat":
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError

        try:
            held = {k: v for k, v in loadmat(path, struct_as_record=False, squeeze_me=True).items() if k[0] != "_"}
        except MatReadError as error:
            raise ValueError(str(error)) from None
        held = {k: v for k, v in held.items() if hasattr(v, "RDM") or _structs(v) or _numbers(v)}
    else:
        raise DataError(f"{path.name} does not end in .npy, .npz, .csv or .mat.", _SAVE)
    named = {getattr(one, "name", ""): one for value in held.values() for one in _structs(value)}
    if name in named and name not in held:
        return named[name].RDM
    if name not in held and (name or len(held) != 1):
        raise UnknownName(f"array in {path.name}", name, [*held, *(one for one in named if one)])
    found = held[name or next(iter(held))]
    if not _structs(found):
        return getattr(found, "RDM", found)
    sessions = np.stack([np.asarray(one.RDM, dtype=np.float64) for one in _structs(found)])
    sessions = sessions.reshape(*found.shape, *sessions.shape[1:])
    return sessions.mean(1) if found.ndim == 2 else sessions


def _structs(value: Any) -> list[Any]:
    array = np.asarray(value)
    return list(array.ravel()) if array.ndim and array.dtype == object and hasattr(array.ravel()[0], "RDM") else []


def _numbers(value: Any) -> bool:
    array = np.asarray(value)
    return array.dtype.kind in "fiub" and array.ndim > 0 and array.size > 2


def _condensed(array: np.ndarray, name: str) -> np.ndarray:
    if array.ndim == 3 and array.shape[1] != array.shape[2] and array.shape[0] == array.shape[1]:
        array = np.moveaxis(array, -1, 0)
    if array.ndim == 2 and array.shape[0] == array.shape[1]:
        array = array[None]
    if array.ndim == 3 and array.shape[1] == array.shape[2] > 2:
        rows, columns = np.triu_indices(array.shape[1], 1)
        upper, lower = array[:, rows, columns], array[:, columns, rows]
        if not np.allclose(upper, lower, rtol=1e-4, atol=1e-6 * float(np.nanmax(np.abs(array))), equal_nan=True):
            raise DataError(
                f"{name} is not symmetric: a pair has two dissimilarities.", "Average it with its transpose."
            )
        if (np.diagonal(array, axis1=1, axis2=2).mean(1) > upper.mean(1)).any():
            raise DataError(f"{name} holds similarities: a picture is most like itself.", "Save 1 − similarity.")
        return (upper + lower) / 2
    rows = np.atleast_2d(array)
    if array.ndim > 2 or size(rows.shape[1]) < 3:
        raise DataError(f"{name} has shape {array.shape}: no dissimilarities of three pictures or more.", _SAVE)
    return rows
