"""Starts that people choose: the weights of a network, kept under the hash of their bytes, with where they come from."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic import write_file
from ..errors import DataError
from .runs import home


def keep(weights: np.ndarray, about: Mapping[str, Any]) -> str:
    """Keep a flat vector of weights; its id. The same weights have the same id, and keep their first `about`."""
    weights = np.ascontiguousarray(weights, dtype=np.float64)
    name = hashlib.sha256(weights.tobytes()).hexdigest()[:16]
    if not _path(name).is_file():
        buffer = io.BytesIO()
        np.savez(buffer, weights=weights, about=np.array(json.dumps(dict(about))))
        write_file(_path(name), buffer.getvalue())
    return name


def start(name: str) -> tuple[np.ndarray, dict[str, Any]]:
    """A kept start's weights, and where they come from. Raises DataError when it is not here."""
    if not re.fullmatch(r"[0-9a-f]{16}", name) or not _path(name).is_file():
        raise DataError(f"The start {name!r} is not on this machine.", "Race from the seed's start, and move it again.")
    with np.load(_path(name), allow_pickle=False) as found:
        return found["weights"], json.loads(str(found["about"]))


def _path(name: str) -> Path:
    return home() / "starts" / f"{name}.npz"
