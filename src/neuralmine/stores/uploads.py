"""Pictures that people give: each is opened with care once, and kept as a PNG under the hash of its pixels."""

from __future__ import annotations

import functools
import hashlib
import io
import re
from pathlib import Path

import numpy as np

from ..atomic import write_file
from ..errors import DataError
from ..pictures import opened
from .runs import home


def keep(data: bytes) -> tuple[str, tuple[int, int]]:
    """Keep a picture; its id and its rows × columns. Raises DataError for what is no picture (see pictures.opened)."""
    from PIL import Image

    picture = opened(data)
    name = hashlib.sha256(repr(picture.shape).encode() + picture.tobytes()).hexdigest()[:20]
    if not _path(name).is_file():
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG")
        write_file(_path(name), buffer.getvalue())
    return name, (picture.shape[0], picture.shape[1])


def is_upload(name: str) -> bool:
    """Whether this is spelt as an id of a kept picture."""
    return bool(re.fullmatch(r"[0-9a-f]{20}", name))


@functools.lru_cache(maxsize=8)
def picture(name: str) -> np.ndarray:
    """A kept picture, rows × columns × 3, 8 bits. Raises DataError when it is not here (any more)."""
    if not is_upload(name) or not _path(name).is_file():
        raise DataError(f"The picture {name} is not on this machine.", "Drop it on the page again.")
    return opened(_path(name))


def _path(name: str) -> Path:
    return home() / "pictures" / f"{name}.png"
