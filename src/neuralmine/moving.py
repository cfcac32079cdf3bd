"""Pictures as files: one, a contact sheet, an animation; seed and settings lie in each file's own notes."""

from __future__ import annotations

import io
import json
import math
import re
import struct
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .atomic import write_file
from .errors import DataError, StoreError, UnknownName, UsageError

if TYPE_CHECKING:
    from PIL import Image

FORMATS = (".gif", ".webp", ".mp4")
GROUND, INK = (244, 239, 229), (43, 39, 33)
_XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><neuralmine>{}</neuralmine></x:xmpmeta>'
_VIDEO = "Run: pip install 'neuralmine[vision]'"


def write_picture(picture: np.ndarray, path: Path | str, about: Mapping[str, Any] | None = None) -> Path:
    """Write a picture (rows × columns × 3, 8 bits) as PNG with `about` in its text; the pixels come back as they were.

    Raises StoreError when the file cannot be written, UsageError for another array.

    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     notes_of(write_picture(np.zeros((4, 4, 3), np.uint8), pathlib.Path(folder) / "a.png", {"seed": 3}))
    {'seed': 3}
    """
    from PIL import Image, PngImagePlugin

    _check([picture])
    text = PngImagePlugin.PngInfo()
    text.add_text("neuralmine", json.dumps(dict(about or {}), ensure_ascii=True))
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", pnginfo=text, compress_level=4)
    return write_file(path, buffer.getvalue())


def write_frames(
    frames: Sequence[np.ndarray],
    path: Path | str,
    *,
    seconds: float = 0.8,
    names: Sequence[str] = (),
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Write pictures of one size as an animation, each shown for so many seconds: GIF, WebP (lossless) or MP4.

    `names` are written below each picture. `about` goes into the file's notes. A GIF has at most 256 colours a
    picture. Raises UnknownName for another ending, UsageError for no pictures or several sizes, StoreError when the
    file cannot be written, DataError for MP4 without imageio-ffmpeg.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise UnknownName("kind of animation", path.suffix or path.name, FORMATS)
    _check(frames)
    if not 0.02 <= seconds <= 60:
        raise UsageError(f"A picture cannot be shown for {seconds} seconds.", "Give 0.02 to 60.")
    shown = [_labelled(frame, names[i] if names else "") for i, frame in enumerate(frames)]
    notes = json.dumps(dict(about or {}), ensure_ascii=True)
    write = {".gif": _gif, ".webp": _webp, ".mp4": _mp4}[path.suffix.lower()]
    return write_file(path, write(shown, seconds, notes))


def sheet(pictures: Sequence[np.ndarray], names: Sequence[str] = (), width: int = 1600) -> np.ndarray:
    """A contact sheet: pictures (rows × columns × 3, 8 bits) side by side with their names, about so wide.

    >>> sheet([np.zeros((30, 40, 3), np.uint8)] * 4, ["a", "b", "c", "d"], 400).shape
    (332, 400, 3)
    """
    from PIL import Image

    _check(pictures)
    rows, columns = pictures[0].shape[:2]
    across = min(len(pictures), max(1, round(math.sqrt(len(pictures) * 1.3 * rows / columns))))
    gap = max(4, width // 120)
    wide = max(16, (width - gap) // across - gap)
    high, band = max(1, round(wide * rows / columns)), max(14, width // 60) if names else 0
    down = math.ceil(len(pictures) / across)
    whole = Image.new("RGB", (gap + across * (wide + gap), gap + down * (high + band + gap)), GROUND)
    for i, picture in enumerate(pictures):
        small = Image.fromarray(picture).resize((wide, high), Image.Resampling.LANCZOS)
        left, top = gap + i % across * (wide + gap), gap + i // across * (high + band + gap)
        whole.paste(small, (left, top))
        if names:
            _write(whole, names[i], (left, top + high), (wide, band))
    return np.array(whole)


def thumbnails(pictures: Sequence[np.ndarray], longest: int = 320) -> np.ndarray:
    """The pictures with their longer side at most so long: n × rows × columns × 3."""
    from PIL import Image

    _check(pictures)
    rows, columns = pictures[0].shape[:2]
    scale = min(1.0, longest / max(rows, columns))
    size = max(1, round(columns * scale)), max(1, round(rows * scale))
    return np.stack([np.array(Image.fromarray(one).resize(size, Image.Resampling.LANCZOS)) for one in pictures])


def notes_of(path: Path | str) -> dict[str, Any]:
    """What was written into a file's notes: {} when there is nothing of ours. Raises StoreError when it cannot be read.

    Works for PNG, GIF, WebP and (with imageio-ffmpeg) MP4.
    """
    from PIL import Image

    path = Path(path)
    try:
        if path.suffix.lower() == ".mp4":
            text = _comment(path)
        else:
            with Image.open(path) as image:
                found = image.info.get("neuralmine") or image.info.get("comment") or image.info.get("xmp") or ""
            text = found.decode("utf-8", "replace") if isinstance(found, bytes) else found
    except (OSError, ValueError, SyntaxError) as error:
        raise StoreError(f"{path} cannot be read: {error}.", "Make it again.") from error
    begin, end = text.find("{"), text.rfind("}")
    try:
        notes = json.loads(text[begin : end + 1]) if begin >= 0 else {}
    except ValueError:
        return {}
    return notes if isinstance(notes, dict) else {}


def _gif(frames: Sequence[Image.Image], seconds: float, notes: str) -> bytes:
    """Each picture with its own 256 colours. PIL alone would leave out one that is like the one before it."""
    width, height = frames[0].size
    parts = [b"GIF89a", struct.pack("<HHBBB", width, height, 0x70, 0, 0)]
    parts += [b"!\xff\x0bNETSCAPE2.0", _blocks(b"\x01\x00\x00"), b"!\xfe", _blocks(notes.encode("ascii"))]
    for frame in frames:
        buffer = io.BytesIO()
        frame.quantize(256).save(buffer, "GIF", optimize=False, interlace=0)
        table, pixels = _frame_of(buffer.getvalue())
        parts += [b"!\xf9", _blocks(struct.pack("<BHB", 4, round(seconds * 100), 0))]
        parts += [struct.pack("<BHHHHB", 0x2C, 0, 0, width, height, 0x80 | (len(table) // 3).bit_length() - 2)]
        parts += [table, pixels]
    return b"".join(parts) + b";"


def _frame_of(gif: bytes) -> tuple[bytes, bytes]:
    """The colours and the packed pixels of a GIF of one picture."""
    length = 3 * (2 << (gif[10] & 7))
    table, at = gif[13 : 13 + length], 13 + length
    while gif[at] == 0x21:  # an extension: its label, then blocks to an empty one
        at += 2
        while gif[at]:
            at += gif[at] + 1
        at += 1
    return table, gif[at + 10 : gif.rindex(b";")]


def _blocks(data: bytes) -> bytes:
    """Data in blocks of at most 255 bytes, as a GIF has them, and an empty one at the end."""
    return b"".join(bytes([len(part)]) + part for part in (data[i : i + 255] for i in range(0, len(data), 255))) + b"\0"


def _webp(frames: Sequence[Image.Image], seconds: float, notes: str) -> bytes:
    buffer = io.BytesIO()
    xmp = _XMP.format(notes.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")).encode()
    frames[0].save(
        buffer, "WEBP", save_all=True, append_images=frames[1:], duration=round(seconds * 1000), loop=0, xmp=xmp,
        lossless=True, quality=20, method=2, minimize_size=False, allow_mixed=False,
    )  # fmt: skip
    return buffer.getvalue()


def _mp4(frames: Sequence[Image.Image], seconds: float, notes: str) -> bytes:
    program = _ffmpeg()
    rows, columns = frames[0].height // 2 * 2, frames[0].width // 2 * 2  # H.264 takes even sizes only
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "film.mp4"
        command = [
            program, "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{columns}x{rows}",
            "-r", f"{1 / seconds:.6f}", "-i", "-", "-r", "25", "-c:v", "libx264", "-crf", "18", "-pix_fmt", "yuv420p",
            "-movflags", "+faststart", "-metadata", f"comment={notes}", str(target),
        ]  # fmt: skip
        data = b"".join(frame.crop((0, 0, columns, rows)).tobytes() for frame in frames)
        done = subprocess.run(command, input=data, capture_output=True, check=False)
        if done.returncode:
            raise StoreError(
                f"The video could not be made: {done.stderr.decode('utf-8', 'replace')[-300:]}", "Use .gif."
            )
        return target.read_bytes()


def _comment(path: Path) -> str:
    command = [_ffmpeg(), "-v", "error", "-i", str(path), "-f", "ffmetadata", "-"]
    done = subprocess.run(command, capture_output=True, check=False)
    lines = done.stdout.decode("utf-8", "replace").split("\n")
    found = next((line for line in lines if line.startswith("comment=")), "")
    return re.sub(r"\\(.)", r"\1", found)


def _ffmpeg() -> str:
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        raise DataError(
            "MP4 needs the package imageio-ffmpeg, which is not here.", _VIDEO + "; or use .gif or .webp."
        ) from None


def _check(pictures: Sequence[np.ndarray]) -> None:
    if not len(pictures):
        raise UsageError("There are no pictures.", "Give at least one.")
    for picture in pictures:
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
            raise UsageError(
                f"An array of {picture.dtype} with shape {picture.shape} is no picture of 8 bits.",
                "Give rows × columns × 3, np.uint8.",
            )
        if picture.shape != pictures[0].shape:
            raise UsageError("The pictures have different sizes.", "Make them one size.")


def _labelled(frame: np.ndarray, name: str) -> Image.Image:
    from PIL import Image

    picture = Image.fromarray(frame)
    if not name:
        return picture
    band = max(12, round(frame.shape[0] * 0.06))
    whole = Image.new("RGB", (picture.width, picture.height + band), GROUND)
    whole.paste(picture, (0, 0))
    _write(whole, name, (0, picture.height), (picture.width, band))
    return whole


def _write(whole: Image.Image, text: str, place: tuple[int, int], room: tuple[int, int]) -> None:
    """One line of letters as large as its room allows."""
    from PIL import ImageDraw, ImageFont

    size = max(6.0, room[1] * 0.72)
    font = ImageFont.load_default(size)
    draw = ImageDraw.Draw(whole)
    while size > 6 and draw.textlength(text, font=font) > room[0] - 4:
        size *= 0.9
        font = ImageFont.load_default(size)
    draw.text((place[0] + 2, place[1] + room[1] / 2), text, fill=INK, font=font, anchor="lm")
