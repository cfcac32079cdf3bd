"""Photos of any kind as arrays: opened with care, and fitted to the square a network takes."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import DataError, UsageError

if TYPE_CHECKING:
    from PIL import Image

LARGEST = 200_000_000  # pixels; read from the header, before anything is decoded
SHORTER = 2048  # a shorter side beyond this is reduced while opening: no network here takes more
# Formats that PIL decodes itself; PostScript, for one, would be run as a program.
FORMATS = (
    *(
        "JPEG",
        "PNG",
        "WEBP",
        "GIF",
        "BMP",
        "DIB",
        "TIFF",
        "MPO",
        "JPEG2000",
        "AVIF",
        "ICO",
        "ICNS",
        "PPM",
        "TGA",
        "PCX",
    ),
    *("QOI", "SGI", "DDS", "PSD"),
)
_TRY = "Give a photo as JPEG, PNG, WebP, GIF, BMP or TIFF."
_MAGIC = {
    b"%PDF": "a PDF document",
    b"%!PS": "a PostScript document",
    b"PK\x03\x04": "a zip archive or an office document",
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"\x93NUMPY": "a numpy array",
    b"\x80\x02": "a pickle",
    b"\x80\x04": "a pickle",
    b"\x89HDF": "an HDF5 file",
    b"\xd0\xcf\x11\xe0": "an old office document",
    b"\x7fELF": "a program",
    b"MZ": "a program",
    b"OggS": "sound or video",
    b"ID3": "sound",
    b"\x1aE\xdf\xa3": "a video",
    b"8BPS": "a Photoshop document",
}
# PIL's limit and the warnings filter are the whole process's, so only one picture is opened at a time.
_one_at_a_time = threading.Lock()


def opened(source: Any) -> np.ndarray:
    """A picture as rows × columns × 3, 8 bits a colour.

    `source` is a path, the bytes of a file, a PIL image, or an array: rows × columns, or rows × columns × 1 (grey),
    2 (grey, opacity), 3 (red, green, blue) or 4 (with opacity), of 8 or 16 bits, booleans, or fractions from 0 to 1.
    It is turned as its EXIF data say; what is transparent becomes white; 16 bits are scaled to 8; of an animation
    the first picture is taken; a photo whose shorter side is beyond 2,048 pixels is reduced to that.
    Raises DataError, saying what it was, for what is no picture, is cut off, or has more than 200 million pixels.

    >>> opened(np.zeros((2, 3), dtype=np.uint8)).shape
    (2, 3, 3)
    """
    from PIL import Image

    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        with _decoding("This PIL image"):
            return _pixels(source, "This PIL image")
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _from_bytes(bytes(source))
    if isinstance(source, (str, Path)):
        return _from_file(source)
    raise DataError(
        f"A picture cannot be made from {type(source).__name__}.", "Give a path, bytes, a PIL image or an array."
    )


def fitted(picture: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """The middle of a picture as 3 × rows × columns, 0 to 1: what a network of that size is shown.

    As is the custom with ImageNet, the shorter side is first resized (bicubic, antialiased) to 256 for networks that
    take 224 to 256, and to 8/7 of the size for others; then the middle is cut out. `picture` is rows × columns × 3,
    8 bits, as `opened` gives it. Raises DataError for another array, UsageError for a size below 1.

    >>> fitted(np.zeros((300, 451, 3), dtype=np.uint8), 224).shape
    (3, 224, 224)
    """
    from PIL import Image

    rows, columns = (size, size) if isinstance(size, int) else size
    if min(rows, columns) < 1:
        raise UsageError(f"A picture cannot be fitted to {rows} × {columns}.", "Give at least 1 × 1.")
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise DataError(
            f"This array of {picture.dtype} with shape {picture.shape} is no opened picture.",
            "Open it first: pictures.opened(picture).",
        )
    height, width = picture.shape[:2]
    smaller = min(rows, columns)
    margin = (256 if 224 <= smaller <= 256 else round(smaller * 8 / 7)) / smaller
    scale = max(rows * margin / height, columns * margin / width)
    whole = max(columns, round(width * scale)), max(rows, round(height * scale))
    left, top = (whole[0] - columns) // 2, (whole[1] - rows) // 2
    # Only the part that stays is resized: the whole of a strip of 1 × 20,000 pixels would not fit into memory.
    across, down = width / whole[0], height / whole[1]
    box = (left * across, top * down, min((left + columns) * across, width), min((top + rows) * down, height))
    image = Image.fromarray(np.ascontiguousarray(picture))
    cut = image.resize((columns, rows), Image.Resampling.BICUBIC, box=box)
    return np.ascontiguousarray(np.asarray(cut, dtype=np.float32).transpose(2, 0, 1) / np.float32(255))


def _from_array(array: np.ndarray) -> np.ndarray:
    said = f"This array of {array.dtype} with shape {array.shape}"
    if array.ndim not in (2, 3) or not array.size or (array.ndim == 3 and array.shape[2] not in (1, 2, 3, 4)):
        raise DataError(f"{said} is no picture.", "Give rows × columns × 3.")
    if array.shape[0] * array.shape[1] > LARGEST:
        raise _too_large("This array", array.shape[1], array.shape[0])
    array = _eight_bits(array, said)
    array = array[..., None] if array.ndim == 2 else array
    if array.shape[2] in (2, 4):
        opacity = array[..., -1:].astype(np.float32) / 255
        array = np.rint(array[..., :-1] * opacity + 255 * (1 - opacity)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


def _eight_bits(array: np.ndarray, said: str) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype == np.uint16:
        return np.rint(array / 257).astype(np.uint8)
    if array.dtype.kind not in "iuf":
        raise DataError(f"{said} holds no numbers.", "Give 8-bit values, or fractions from 0 to 1.")
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError(f"{said} holds values that are not numbers (NaN or infinite).", "Replace them.")
    top = 1 if array.dtype.kind == "f" else 255
    if low < 0 or high > top:
        raise DataError(
            f"{said} has values from {low:.6g} to {high:.6g}; a picture's lie from 0 to {top}.",
            "Give 8-bit values, or fractions from 0 to 1.",
        )
    return np.rint(array * (255 / top)).astype(np.uint8)


def _from_bytes(data: bytes) -> np.ndarray:
    said = f"This file of {len(data):,} bytes"
    if not data:
        raise DataError("This file is empty.", "Copy or download it again.")
    return _decoded(io.BytesIO(data), said)


def _from_file(source: str | Path) -> np.ndarray:
    if str(source).startswith(("http://", "https://")):
        raise DataError(f"{source} is an address on the web.", "Save the picture, and give the file's path.")
    path = Path(source).expanduser()
    try:
        if path.is_dir():
            raise DataError(f"{path} is a folder.", "Give the path of one picture.")
        if not path.exists():
            raise DataError(f"There is no file {path}.", "Check the path.")
        if not path.is_file():
            raise DataError(f"{path} is no ordinary file.", _TRY)
        if not path.stat().st_size:
            raise DataError(f"{path} is empty.", "Copy or download it again.")
        with path.open("rb") as file:
            return _decoded(file, str(path))
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.", "Check it.") from None


def _decoded(file: Any, said: str) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    with _decoding(said):
        Image.init()
        try:
            image = Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN])
        except UnidentifiedImageError:
            file.seek(0)
            kind = _kind(file.read(512))
            raise DataError(f"{said} is {kind}, no picture." if kind else f"{said} is no picture.", _TRY) from None
        with image:
            _check_size(image, said)
            image.draft(None, _reduced(image.size))  # a JPEG can be decoded at 1/2, 1/4 or 1/8 of its size
            return _pixels(image, said)


@contextmanager
def _decoding(said: str) -> Iterator[None]:
    """PIL without its warnings and its own limit; whatever its decoders raise on a broken file is a DataError."""
    from PIL import Image

    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        except DataError:
            raise
        except MemoryError:
            raise DataError(f"{said} does not fit into memory.", "Make it smaller.") from None
        except Exception as error:  # struct.error, zlib.error, IndexError …: a decoder may trip over anything
            why = str(error) or type(error).__name__
            raise DataError(f"{said} is cut off or broken: {why}.", "Copy or download it again.") from None
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _pixels(image: Image.Image, said: str) -> np.ndarray:
    from PIL import Image, ImageOps

    _check_size(image, said)
    image.load()
    with suppress(Exception):  # broken EXIF data are common, and the picture itself may be whole
        image = ImageOps.exif_transpose(image)
    image = _plain(image)
    small = _reduced(image.size)
    if image.size != small:
        image = image.resize(small, Image.Resampling.BICUBIC, reducing_gap=3.0)
    return np.array(image)


def _check_size(image: Image.Image, said: str) -> None:
    width, height = image.size
    if width * height > LARGEST:
        raise _too_large(said, width, height)
    if not width * height:
        raise DataError(f"{said} has {width} × {height} pixels.", _TRY)


def _reduced(size: tuple[int, int]) -> tuple[int, int]:
    scale = min(1.0, SHORTER / min(size))
    return round(size[0] * scale), round(size[1] * scale)


def _plain(image: Image.Image) -> Image.Image:
    """Red, green and blue, 8 bits each, on white."""
    from PIL import Image

    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_scaled(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _scaled(grey: np.ndarray) -> np.ndarray:
    """Grey of 16 bits, 32 bits or fractions as 8 bits: 16 bits by their full range, others by what they hold."""
    values = grey.astype(np.float64)
    if not np.isfinite(values).all():
        raise DataError("This picture holds values that are not numbers (NaN or infinite).", "Replace them.")
    low, high = values.min(), values.max()
    if grey.dtype.kind == "f" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif grey.dtype.kind != "f" and low >= 0 and high <= 65535:
        low, high = 0.0, 65535.0
    return np.rint((values - low) * (255 / max(high - low, 1e-300))).astype(np.uint8)


def _too_large(said: str, width: int, height: int) -> DataError:
    return DataError(
        f"{said} has {width:,} × {height:,} pixels, {width * height / 1e6:,.0f} million; at most {LARGEST // 10**6} "
        "million are opened.",
        "Make it smaller.",
    )


def _kind(start: bytes) -> str:
    """What a file is that is no picture, by how it begins."""
    for magic, kind in _MAGIC.items():
        if start.startswith(magic):
            return kind
    if start[4:8] == b"ftyp":
        return "a HEIC photo (an iPhone's)" if start[8:11] in (b"hei", b"hev", b"mif", b"msf") else "a video"
    if start.startswith(b"RIFF"):
        return "sound or video"
    try:
        text = start.decode("utf-8", "strict" if len(start) < 512 else "ignore").lstrip("\ufeff \r\n\t").lower()
    except UnicodeDecodeError:
        return ""
    if "<svg" in text:
        return "an SVG drawing"
    if text.startswith(("<!doctype html", "<html")):
        return "a web page"
    printable = sum(c.isprintable() or c.isspace() for c in text)
    return "a text" if text and printable > 0.95 * len(text) else ""
