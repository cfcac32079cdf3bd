"""Labelled examples: pictures, sounds, names and measurements that come along, toy problems, and the user's own files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import DataError, UnknownName, UsageError
from ..types import Dataset
from .photos import PHOTOS as PHOTOS
from .photos import photo as photo
from .photos import photos as photos
from .toys import TOYS as TOYS
from .toys import toy as toy

_NAMES = {
    "digits": "1,797 handwritten digits of 8 × 8 pixels (UCI optdigits, test part), bundled with scikit-learn",
    "tiles": "280 tiles of the 14 photos that come with scikit-image (needs the vision extra)",
    "xor": "four clusters that no line tells apart: do two numbers differ in sign?",
    "spirals": "two spirals around each other: which one is a point of?",
    "circles": "a disc and a ring around it: which one is a point of?",
    "vowels": "2,000 sounds of ten vowels, 64 ms each, generated from the resonances of a mouth",
    "colour-names": "949 names that people gave to colours, as the letters in them, and five kinds of colour",
    "tumours": "569 breast tumours, 30 numbers each measured on their cells (Wisconsin), bundled with scikit-learn",
    "mnist": "70,000 handwritten digits of 28 × 28 pixels; fetched once, or read from a folder of IDX files",
}


def names() -> dict[str, str]:
    """The data sets that have a name: name to one line."""
    return dict(_NAMES)


def load(source: str | Path, **options: Any) -> Dataset:
    """A Dataset from a name, a CSV file, or a folder (images by class, MNIST's IDX files, or optdigits.tra and .tes).

    Options go to the loader: `label`, `shape`, `scale` for a CSV; `size`, `colour`, `ink` for a folder of images;
    `points`, `noise`, `seed` for xor, spirals and circles; `count`, `noise`, `seed` for vowels.
    Raises UnknownName or DataError, saying what was found and what to do.

    >>> len(load("digits"))
    1797
    """
    text = str(source)
    try:
        if text == "digits":
            from .digits import digits

            return digits(**options)
        if text == "tiles":
            from .tiles import tiles

            return tiles(**options)
        if text == "vowels":
            from .vowels import vowels

            return vowels(**options)
        if text == "colour-names":
            from .colour_names import colour_names

            return colour_names(**options)
        if text == "tumours":
            from .tumours import tumours

            return tumours(**options)
        if text == "mnist":
            from .mnist import mnist

            return mnist(**options)
        if text in TOYS:
            return toy(text, **options)
        return _from_path(Path(text).expanduser(), **options)
    except TypeError as error:
        if "keyword argument" not in str(error):
            raise
        raise UsageError(f"{error}.", "See help(neuralmine.datasets.load).") from None


def _from_path(path: Path, **options: Any) -> Dataset:
    if path.suffix.lower() in (".csv", ".tsv", ".txt"):
        from .table import csv

        return csv(path, **options)
    if path.is_file() and path.suffix in (".tra", ".tes"):
        path = path.parent
    if not path.is_dir():
        if path.exists():
            raise DataError(f"{path} is no CSV file and no folder.", "Give a .csv file or a folder of images by class.")
        if path.suffix or "/" in str(path):
            raise DataError(f"There is no {path}.", "Check the path.")
        raise UnknownName("data set", path, names())
    try:
        inside = [p.name for p in path.iterdir()]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.", "Check its permissions.") from None
    if {"optdigits.tra", "optdigits.tes"} <= set(inside):
        from .digits import optdigits

        return optdigits(path, **options)
    if any("ubyte" in name for name in inside):
        from .mnist import mnist

        return mnist(path, **options)
    from .folder import image_folder

    return image_folder(path, **options)
