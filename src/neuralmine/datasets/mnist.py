"""MNIST: from a folder of its four IDX files, or fetched once and kept."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from pathlib import Path

import numpy as np

from ..atomic import write_file
from ..errors import DataError
from ..types import Dataset

_SOURCE = "MNIST (LeCun, Cortes and Burges)"
_NOTE = "The published split: 60,000 training images, 10,000 test images by other writers."


def mnist(path: Path | str | None = None) -> Dataset:
    """70,000 digits of 28 × 28 pixels, 0 (no ink) to 1, with the published split.

    path: a folder with train-images, train-labels, t10k-images and t10k-labels (idx3-ubyte / idx1-ubyte, plain or
        .gz). Without it they are fetched from openml.org once and kept in the cache folder (NEURALMINE_CACHE).

    Raises DataError for a missing, broken or truncated file, and when there is no network.
    """
    if path is not None:
        parts = [_pair(Path(path), part) for part in ("train", "t10k")]
        images = np.concatenate([images for images, _ in parts])
        labels = np.concatenate([labels for _, labels in parts])
        return _dataset(images, labels, len(parts[0][1]))
    kept = cache_folder() / "mnist.npz"
    if not kept.is_file():
        write_file(kept, _fetched())
    with np.load(kept, allow_pickle=False) as file:
        return _dataset(file["images"], file["labels"], 60_000)


def cache_folder() -> Path:
    """Where fetched data are kept: NEURALMINE_CACHE, else the user's cache folder."""
    named = os.environ.get("NEURALMINE_CACHE")
    return Path(named or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "neuralmine")


def read_idx(file: Path) -> np.ndarray:
    """An IDX file of bytes as an array. Raises DataError naming the file when it is none or is cut short."""
    try:
        data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file} cannot be read: {error}.", "Download it again.") from None
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise DataError(f"{file} is no IDX file of bytes.", "Download it again.")
    rank = data[3]
    shape = np.frombuffer(data, ">u4", rank, 4) if len(data) >= 4 + 4 * rank else np.array([0])
    body = np.frombuffer(data, np.uint8, offset=min(4 + 4 * rank, len(data)))
    if rank == 0 or len(body) != int(shape.prod()):
        raise DataError(f"{file} is cut short: {len(body)} bytes, {int(shape.prod())} expected.", "Download it again.")
    return body.reshape(shape)


def _pair(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    images = read_idx(_find(folder, f"{part}-images", "idx3-ubyte"))
    labels = read_idx(_find(folder, f"{part}-labels", "idx1-ubyte"))
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise DataError(
            f"{folder}: {part} has images {images.shape} and labels {labels.shape}.", "Download both again."
        )
    return images, labels


def _find(folder: Path, stem: str, kind: str) -> Path:
    tried = [f"{stem}{mark}{kind}{end}" for mark in ("-", ".") for end in ("", ".gz")]
    for name in tried:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder} has no {tried[0]} (plain or .gz).", "Put MNIST's four IDX files there.")


def _fetched() -> bytes:
    from sklearn.datasets import fetch_openml

    try:
        bunch = fetch_openml("mnist_784", version=1, as_frame=False, parser="liac-arff")
    except Exception as error:  # whatever goes wrong on the way to another machine
        raise DataError(
            f"MNIST could not be fetched from openml.org: {error}.",
            "Without a network give a folder with MNIST's four IDX files: datasets.load('folder').",
        ) from None
    buffer = io.BytesIO()
    images = np.asarray(bunch.data, dtype=np.uint8).reshape(-1, 28, 28)
    np.savez_compressed(buffer, images=images, labels=np.asarray(bunch.target, dtype=np.uint8))
    return buffer.getvalue()


def _dataset(images: np.ndarray, labels: np.ndarray, training: int) -> Dataset:
    scaled = images.astype(np.float32) / 255
    return Dataset("mnist", scaled, labels.astype(np.int64), tuple("0123456789"), _NOTE, _SOURCE, test_from=training)
