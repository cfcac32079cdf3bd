"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from .errors import StoreError


def write_file(path: Path | str, content: bytes | str) -> Path:
    """Write `content` to `path` so that a reader sees the old file or the new one, never a part.

    Raises StoreError when the folder cannot be written.

    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_file(pathlib.Path(folder) / "a.txt", "gold").read_text()
    'gold'
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise StoreError(f"Cannot write {path}: {error.strerror or error}.", _advice(error)) from error
    return path


def write_folder(path: Path | str, files: Mapping[str, bytes | str]) -> Path:
    """Write a folder of files at once; an older folder of that name is replaced when the new one is complete.

    Raises StoreError when the place cannot be written, or when `path` is a file.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise StoreError(f"{path} is a file, not a folder.", "Give a folder.")
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        for name, content in files.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            (temporary / name).write_bytes(content.encode() if isinstance(content, str) else content)
        old = None
        if path.exists():
            if not all(name.name in files or name.suffix in _OURS for name in path.iterdir()):
                raise StoreError(f"{path} holds files that Neuralmine did not write.", "Give an empty or a new folder.")
            old = path.with_name(f".{path.name}.old")
            shutil.rmtree(old, ignore_errors=True)
            os.replace(path, old)
        os.replace(temporary, path)
        temporary = None
        if old:
            shutil.rmtree(old, ignore_errors=True)
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"Cannot write {path}: {error.strerror or error}.", _advice(error)) from error
    finally:
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)
    return path


def _advice(error: OSError) -> str:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return "What was written before is whole. Free some space." if full else "Choose a folder you may write to."


_OURS = {".json", ".npz", ".png", ".svg", ".gif", ".txt"}
