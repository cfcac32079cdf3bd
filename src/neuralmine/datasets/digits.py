"""The handwritten digits that scikit-learn ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import DataError
from ..types import Dataset

NOTE = (
    "These 1,797 images are only the writer-independent test part of UCI optdigits: a random split puts the same "
    "writers into training and test, so accuracy is optimistic."
)


def digits() -> Dataset:
    """1,797 images of 8 × 8 pixels, 0 (no ink) to 1, as scikit-learn's load_digits ÷ 16.

    >>> digits().images.shape
    (1797, 8, 8)
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return Dataset(
        "digits", (bunch.images / 16).astype(np.float32), bunch.target.astype(np.int64), tuple("0123456789"), NOTE,
        "UCI Optical Recognition of Handwritten Digits (Alpaydin and Kaynak 1998, CC BY 4.0), via scikit-learn",
    )  # fmt: skip


def optdigits(folder: Path | str) -> Dataset:
    """The full UCI set, 3,823 + 1,797 images, with its published split: no writer of the test part is in training.

    `folder` holds optdigits.tra and optdigits.tes (archive.ics.uci.edu, dataset 80). Raises DataError for a missing
    or broken file.
    """
    from .table import numbers_of

    parts = []
    for name in ("optdigits.tra", "optdigits.tes"):
        table = numbers_of(Path(folder) / name)
        if table.shape[1] != 65:
            raise DataError(f"{Path(folder) / name} has {table.shape[1]} columns, not 65.", "Download it again.")
        parts.append(table)
    rows = np.concatenate(parts)
    return Dataset(
        "optdigits",
        (rows[:, :64].reshape(-1, 8, 8) / 16).astype(np.float32),
        rows[:, 64].astype(np.int64),
        tuple("0123456789"),
        "The published, writer-independent split: the 13 writers of the test part wrote none of the training images.",
        "UCI Optical Recognition of Handwritten Digits (Alpaydin and Kaynak 1998, CC BY 4.0)",
        test_from=len(parts[0]),
    )
