"""The handwritten digits that scikit-learn ships."""

from __future__ import annotations

import numpy as np

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
