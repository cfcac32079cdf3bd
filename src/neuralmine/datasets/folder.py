"""The user's own pictures: a folder with one sub-folder for each class."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from ..errors import DataError, UnknownName
from ..types import Dataset

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"}


def image_folder(
    path: Path | str,
    *,
    size: tuple[int, int] | None = None,
    colour: bool = False,
    ink: Literal["auto", "dark", "light"] = "auto",
) -> Dataset:
    """A Dataset from a folder of pictures, one sub-folder a class, in the order of their names.

    size: rows × columns to which every picture is resized (bilinear); without it all must be of one size.
    colour: keep three channels (rows × columns × 3) instead of grey.
    ink: "dark" strokes on a light ground are turned over so that 1 is ink; "light" ones stay; "auto" looks whether
        the borders are lighter than the middle of the scale. The note says what was done.

    Raises DataError for a folder that is missing, empty or has a single class, a picture that cannot be read, and
    mixed sizes, naming the files.
    """
    from PIL import Image, UnidentifiedImageError

    path = Path(path)
    if ink not in ("auto", "dark", "light"):
        raise UnknownName("ink", ink, ("auto", "dark", "light"))
    classes, files, left_out = _files(path)
    pictures: list[np.ndarray] = []
    for file, _ in files:
        try:
            with Image.open(file) as opened:
                picture = opened.convert("RGB" if colour else "L")
                if size is not None:
                    picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
                pictures.append(np.asarray(picture, dtype=np.float32) / 255)
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            raise DataError(f"{file} cannot be read as a picture: {error}.", "Remove or replace it.") from None
        if pictures[-1].shape != pictures[0].shape:
            first, here = pictures[0].shape, pictures[-1].shape
            raise DataError(
                f"The pictures have mixed sizes: {files[0][0].name} is {first[1]} × {first[0]}, "
                f"{file.name} is {here[1]} × {here[0]}.",
                "Give size=(rows, columns), and all are resized.",
            )
    images = np.stack(pictures)
    border = np.concatenate(
        [images[:, 0].ravel(), images[:, -1].ravel(), images[:, :, 0].ravel(), images[:, :, -1].ravel()]
    )
    turned = ink == "dark" or (ink == "auto" and not colour and float(np.median(border)) > 0.5)
    note = "Dark strokes on a light ground: turned over so that 1 is ink. " if turned else ""
    note += f"Not pictures, left out: {', '.join(left_out[:5])}{' …' if len(left_out) > 5 else ''}." if left_out else ""
    labels = np.array([label for _, label in files])
    return Dataset(path.name, 1 - images if turned else images, labels, classes, note.strip(), str(path))


def _files(path: Path) -> tuple[tuple[str, ...], list[tuple[Path, int]], list[str]]:
    try:
        folders = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
        inside = [sorted(p for p in folder.rglob("*") if p.is_file() and p.name[0] != ".") for folder in folders]
    except FileNotFoundError:
        raise DataError(f"There is no folder {path}.", "Check the path.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.", "Check its permissions.") from None
    left_out = [p.name for part in inside for p in part if p.suffix.lower() not in SUFFIXES]
    filled = [
        (folder.name, [p for p in part if p.suffix.lower() in SUFFIXES])
        for folder, part in zip(folders, inside, strict=True)
    ]
    filled = [(name, part) for name, part in filled if part]
    if not filled:
        raise DataError(
            f"{path} has no pictures in sub-folders.", "Make one sub-folder for each class and put its pictures there."
        )
    if len(filled) < 2:
        raise DataError(f"{path} has only one class, {filled[0][0]!r}.", "Give pictures of at least two classes.")
    files = [(file, label) for label, (_, part) in enumerate(filled) for file in part]
    return tuple(name for name, _ in filled), files, left_out
