"""Folders of more pictures than memory holds: they are opened when they are asked for, and not kept."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..types import Dataset
from .folder import SUFFIXES


class Pictures:
    """Picture files that look like an array n × rows × columns × 3, from 0 to 1.

    A slice, a mask or a list of indices is again `Pictures`, and reads nothing; an index opens that picture, and
    `numpy.asarray` opens all of them.
    """

    dtype = np.dtype(np.float32)
    ndim = 4

    def __init__(self, files: Sequence[Path], size: tuple[int, int]) -> None:
        self.files, self.size_of_one = tuple(files), (int(size[0]), int(size[1]))

    def __len__(self) -> int:
        return len(self.files)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self.files), *self.size_of_one, 3)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    def __getitem__(self, which: Any) -> Any:
        if isinstance(which, (int, np.integer)):
            return _read(self.files[which], self.size_of_one)
        chosen = np.arange(len(self.files))[which]
        return Pictures([self.files[i] for i in chosen], self.size_of_one)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if not self.files:
            return np.zeros(self.shape, dtype or self.dtype)
        found = np.stack([_read(file, self.size_of_one) for file in self.files])
        return found if dtype is None else found.astype(dtype, copy=False)

    def fingerprint(self) -> str:
        """Changes when a file is added, removed, renamed or written, or the size is another; no picture is opened."""
        digest = hashlib.sha256(repr(self.size_of_one).encode())
        for file in self.files:
            try:
                about = file.stat()
            except OSError as error:
                raise DataError(f"{file} cannot be read: {error.strerror}.", "List the folder again.") from None
            digest.update(f"{file.name}\0{about.st_size}\0{about.st_mtime_ns}\0".encode())
        return digest.hexdigest()[:16]


def stream(path: Path | str, *, size: tuple[int, int] = (224, 224)) -> Dataset:
    """A Dataset of the pictures in a folder that are opened when they are needed, so it may hold any number of them.

    Sub-folders are classes, in the order of their names; pictures directly in the folder are one class of its name.
    size: rows × columns. Every picture is opened and fitted as `pictures.opened` and `pictures.fitted` do it.

    Raises DataError for a folder that is missing or has no pictures; a picture that cannot be read is found when it
    is opened.

    >>> import tempfile, PIL.Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     PIL.Image.new("RGB", (40, 20), "red").save(f"{folder}/red.png")
    ...     data = stream(folder, size=(8, 8))
    ...     data.shape, data.images[0][4, 4].tolist()
    ((8, 8, 3), [1.0, 0.0, 0.0])
    """
    path = Path(path).expanduser()
    try:
        folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        classes = [(path.name, _pictures(path.iterdir())), *((f.name, _pictures(f.rglob("*"))) for f in folders)]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.", "Give a folder of pictures.") from None
    classes = [(name, files) for name, files in classes if files]
    if not classes:
        raise DataError(f"{path} has no pictures.", f"Put files there that end in {', '.join(sorted(SUFFIXES))}.")
    files = [file for _, part in classes for file in part]
    labels = np.repeat(np.arange(len(classes)), [len(part) for _, part in classes])
    images: Any = Pictures(files, size)
    return Dataset(path.name, images, labels, tuple(name for name, _ in classes), source=str(path))


def _pictures(entries: Any) -> list[Path]:
    return sorted(e for e in entries if e.suffix.lower() in SUFFIXES and e.name[0] != "." and e.is_file())


def _read(file: Path, size: tuple[int, int]) -> np.ndarray:
    from ..pictures import fitted, opened

    return np.ascontiguousarray(fitted(opened(file), size).transpose(1, 2, 0))
