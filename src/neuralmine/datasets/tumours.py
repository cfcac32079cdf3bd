"""Breast tumours, as scikit-learn ships them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..types import Dataset


def tumours() -> Dataset:
    """569 breast tumours: 30 numbers each, measured on microscope pictures of cell nuclei; malignant or benign.

    >>> tumours().classes
    ('malignant', 'benign')
    """
    from sklearn.datasets import load_breast_cancer

    bunch: Any = load_breast_cancer()
    return Dataset(
        "tumours", bunch.data, bunch.target.astype(np.int64), tuple(str(name) for name in bunch.target_names),
        "People outlined the nuclei and a program measured them: the pictures themselves are not here.",
        "Breast Cancer Wisconsin (Diagnostic) (Wolberg, Mangasarian and Street 1995, CC BY 4.0), via scikit-learn",
    )  # fmt: skip
