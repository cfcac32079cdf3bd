"""How far a long walk over a data set has come, on disk: one file, written whole, that says what it belongs to.

strongest.npz   the arrays found so far, `next` (the first image that was not seen), and `about`, a JSON object
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic import write_file
from ..errors import StoreError

FILE = "strongest.npz"


def save(folder: Path | str, about: Mapping[str, Any], next_image: int, arrays: Mapping[str, np.ndarray]) -> Path:
    """Write the state; a reader, or whoever comes after a crash, sees the state before or this one.

    Raises StoreError when the folder cannot be written.
    """
    buffer = io.BytesIO()
    said = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
    np.savez(buffer, allow_pickle=False, about=said, next=np.array(next_image), **{f"a/{k}": v for k, v in arrays.items()})  # fmt: skip
    return write_file(Path(folder) / FILE, buffer.getvalue())


def load(folder: Path | str, about: Mapping[str, Any]) -> tuple[int, dict[str, np.ndarray]] | None:
    """The next image and the arrays that were saved for the same work; None when nothing was.

    Raises StoreError, naming what differs, when the state there is of other work, or when it cannot be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     print(load(folder, {"count": 9}))
    ...     _ = save(folder, {"count": 9}, 32, {"value": np.ones(2)})
    ...     load(folder, {"count": 9})
    None
    (32, {'value': array([1., 1.])})
    """
    path = Path(folder) / FILE
    if not path.exists():
        if Path(folder).exists() and not Path(folder).is_dir():
            raise StoreError(f"{folder} is a file, not a folder.", "Give a folder.")
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            said = json.loads(file["about"].tobytes())
            next_image = int(file["next"])
            arrays = {name[2:]: file[name] for name in file.files if name.startswith("a/")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise StoreError(f"{path} cannot be read: {error}.", "Delete it, and begin again.") from error
    given = json.loads(json.dumps(about))
    differs = [key for key in {**said, **given} if said.get(key) != given.get(key)]
    if differs:
        told = "; ".join(f"{key}: there {_short(said.get(key))}, now {_short(given.get(key))}" for key in differs)
        raise StoreError(f"{path} holds other work. It differs in {told}.", "Give another folder, or delete the file.")
    return next_image, arrays


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"
