"""CSV files: one row an image or an example, one column its label."""

from __future__ import annotations

import csv as csv_reader
from pathlib import Path

import numpy as np

from ..errors import DataError, UnknownName
from ..types import Dataset


def csv(
    path: Path | str,
    *,
    label: str | int | None = None,
    shape: tuple[int, ...] | None = None,
    scale: float | None = None,
) -> Dataset:
    """A Dataset from a CSV file of numbers, one row an example.

    label: the label's column, by its heading or its number (from 0, negative from the end); by default the column
        headed "label", "class", "target" or "y", else the last. Labels may be words.
    shape: rows × columns of a picture; a square is inferred (64 numbers are 8 × 8).
    scale: the value that means full ink; by default 1, 16 or 255, the smallest that no value exceeds.

    Raises DataError for a file that is missing, no text, empty, ragged, or has a cell that is no number, naming the
    line; for NaN; and for a single class. Raises UnknownName for a label column that is not there.

    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder) / "a.csv"
    ...     _ = file.write_text("a,b,class\\n0,1,cat\\n1,0,dog\\n")
    ...     csv(file).classes
    ('cat', 'dog')
    """
    path = Path(path)
    lines = _lines(path)
    heading = lines[0][1] if not all(_is_number(cell) for cell in lines[0][1][:-1] or lines[0][1]) else None
    rows = lines[1:] if heading else lines
    if not rows:
        raise DataError(f"{path} has a heading but no rows.", "Give at least two rows of different classes.")
    width = len(heading) if heading else len(rows[0][1])
    ragged = [(line, len(cells)) for line, cells in rows if len(cells) != width]
    if ragged:
        shown = ", ".join(f"line {line} has {count}" for line, count in ragged[:3])
        raise DataError(
            f"{path} is ragged: {width} cells are expected, but {shown}"
            + (f" (and {len(ragged) - 3} more)." if len(ragged) > 3 else "."),
            "Give every row the same number of cells.",
        )
    if width < 2:
        raise DataError(f"{path} has one column.", "Give the values and a label for each row, separated by commas.")
    place = _label_column(path, label, heading, width)
    words = [cells[place].strip() for _, cells in rows]
    values = _numbers(path, [(line, [c for i, c in enumerate(cells) if i != place]) for line, cells in rows])
    classes = sorted(set(words), key=lambda w: (0, float(w), w) if _is_number(w) else (1, 0.0, w))
    if len(classes) < 2:
        raise DataError(f"{path} has only one class, {classes[0]!r}.", "Give examples of at least two classes.")
    full, note = _scale(path, values, scale)
    number = {name: i for i, name in enumerate(classes)}
    return Dataset(
        path.stem,
        (values / full).astype(np.float32).reshape(len(values), *_shape(path, values.shape[1], shape)),
        np.array([number[word] for word in words]),
        tuple(classes),
        note,
        str(path),
    )


def numbers_of(path: Path | str) -> np.ndarray:
    """A CSV file of numbers without a heading as an array of rows. Raises DataError like `csv`."""
    path = Path(path)
    lines = _lines(path)
    if len({len(cells) for _, cells in lines}) > 1:
        raise DataError(f"{path} is ragged.", "Download or write it again.")
    return _numbers(path, lines)


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.", "Check the path.") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is no text file in UTF-8.", "Save it as CSV, UTF-8.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.", "Check its permissions.") from None
    if "\0" in text[:4096]:
        raise DataError(f"{path} is no text file.", "Save it as CSV, UTF-8.")
    first = text.partition("\n")[0]
    between = max(",;\t", key=first.count)
    try:
        rows = [
            (i, cells) for i, cells in enumerate(csv_reader.reader(text.splitlines(), delimiter=between), 1) if cells
        ]
    except csv_reader.Error as error:
        raise DataError(f"{path} is no readable CSV: {error}.", "Save it as CSV again.") from None
    if not rows:
        raise DataError(f"{path} is empty.", "Give at least two rows of different classes.")
    return rows


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _numbers(path: Path, rows: list[tuple[int, list[str]]]) -> np.ndarray:
    try:
        values = np.array([cells for _, cells in rows], dtype=np.float64)
    except ValueError:
        for line, cells in rows:
            for column, cell in enumerate(cells, 1):
                if not _is_number(cell):
                    raise DataError(
                        f"{path}, line {line}: value {column} is {cell[:40]!r}, which is no number.",
                        "Correct the cell.",
                    ) from None
        raise
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        line, column = rows[bad[0][0]][0], bad[0][1] + 1
        raise DataError(
            f"{path}, line {line}: value {column} is {values[tuple(bad[0])]} ({len(bad)} such cells in all).",
            "Remove the rows with missing values, or fill them in.",
        )
    return values


def _label_column(path: Path, label: str | int | None, heading: list[str] | None, width: int) -> int:
    names = [name.strip() for name in heading or []]
    if label is None:
        for i, name in enumerate(names):
            if name.lower() in ("label", "class", "target", "y"):
                return i
        return width - 1
    if isinstance(label, str) and label in names:
        return names.index(label)
    try:
        place = int(label)
    except ValueError:
        raise UnknownName(f"column in {path.name}", label, names) from None
    if not -width <= place < width:
        raise UnknownName(f"column in {path.name}", label, [str(i) for i in range(width)])
    return place % width


def _scale(path: Path, values: np.ndarray, scale: float | None) -> tuple[float, str]:
    low, high = float(values.min()), float(values.max())
    if low < 0:
        return float(scale or 1), f"Values from {low:g} to {high:g}" + (
            f", divided by {scale:g}." if scale else ", as they are."
        )
    full = scale or next((full for full in (1.0, 16.0, 255.0) if high <= full), high)
    if full <= 0:
        raise DataError(f"scale is {scale}; it must be above 0.", "Give the value that means full ink.")
    return float(full), f"Values from {low:g} to {high:g} in {path.name}, divided by {full:g}."


def _shape(path: Path, count: int, shape: tuple[int, ...] | None) -> tuple[int, ...]:
    if shape is not None:
        if int(np.prod(shape)) != count:
            raise DataError(f"{path} has {count} values a row, which do not make {shape}.", "Give another shape.")
        return tuple(shape)
    side = round(count**0.5)
    return (side, side) if side * side == count and side > 1 else (count,)
