"""Photos of any kind: every file here is made by the test itself."""

import io
import struct
import threading
import time
import zlib

import numpy as np
import pytest
from PIL import Image, features

from neuralmine import pictures
from neuralmine.errors import DataError, UsageError
from neuralmine.pictures import fitted, opened

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)


def smooth(rows, columns):
    """A picture without sharp edges, so that JPEG keeps it."""
    y, x = np.mgrid[0:rows, 0:columns]
    return np.stack([255 * x / columns, 255 * y / rows, 128 + 0 * x], -1).astype(np.uint8)


def written(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "TGA", "ICO"])
def test_formats_without_loss_come_back_as_they_were(kind, tmp_path):
    picture = np.ascontiguousarray(NOISE[:32, :32]) if kind == "ICO" else NOISE
    data = written(Image.fromarray(picture), kind, **({"sizes": [(32, 32)]} if kind == "ICO" else {}))
    path = tmp_path / f"picture.{kind.lower()}"
    path.write_bytes(data)
    for given in (path, str(path), data, bytearray(data), memoryview(data), Image.open(path), picture):
        found = opened(given)
        assert np.array_equal(found, picture)
        assert found.dtype == np.uint8


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "JPEG2000", "AVIF"])
def test_formats_with_loss_come_close(kind):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    picture = smooth(48, 64)
    found = opened(written(Image.fromarray(picture), kind))
    assert found.shape == (48, 64, 3)
    assert np.abs(found.astype(int) - picture).mean() < 4


@pytest.mark.parametrize("turn", range(1, 9))
def test_it_is_turned_as_its_exif_says(turn):
    upright = np.zeros((6, 9, 3), np.uint8)
    upright[0, 0], upright[0, -1] = (255, 0, 0), (0, 255, 0)
    # How each of the eight turns lies in the file, from the upright picture.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[turn]
    exif = Image.Exif()
    exif[0x0112] = turn
    assert np.array_equal(opened(written(Image.fromarray(stored.copy()), "PNG", exif=exif)), upright)


def test_broken_exif_is_no_reason_to_refuse_a_whole_picture():
    data = written(Image.fromarray(smooth(20, 30)), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert opened(data).shape == (20, 30, 3)


def test_colour_modes():
    image = Image.fromarray(NOISE)
    grey = np.asarray(image.convert("L"))
    assert np.array_equal(opened(written(image.convert("L"), "PNG")), np.stack([grey] * 3, -1))
    bits = image.convert("1")
    found = opened(written(bits, "PNG"))
    assert set(np.unique(found)) == {0, 255}
    assert np.array_equal(found[..., 0] > 0, np.asarray(bits))
    palette = image.quantize(16)
    assert np.array_equal(opened(written(palette, "PNG")), np.asarray(palette.convert("RGB")))
    cmyk = Image.fromarray(smooth(24, 24)).convert("CMYK")
    found = opened(written(cmyk, "JPEG", quality=95))
    assert np.abs(found.astype(int) - smooth(24, 24)).mean() < 6
    assert np.array_equal(opened(image.convert("YCbCr")), np.asarray(image.convert("YCbCr").convert("RGB")))


def test_what_is_transparent_becomes_white():
    clear = np.dstack([NOISE, np.zeros((40, 60), np.uint8)])
    half = np.dstack([NOISE, np.full((40, 60), 128, np.uint8)])
    assert (opened(written(Image.fromarray(clear), "PNG")) == 255).all()
    assert (opened(clear) == 255).all()
    expected = NOISE * (128 / 255) + 255 * (127 / 255)
    for given in (half, Image.fromarray(half), written(Image.fromarray(half), "PNG")):
        assert np.abs(opened(given) - expected).max() <= 1
    two = Image.fromarray(clear).convert("LA")
    assert (opened(written(two, "PNG")) == 255).all()
    assert (opened(np.asarray(two)) == 255).all()
    palette = Image.fromarray(NOISE).quantize(8)
    for transparency in (0, bytes([0, 128, 255])):  # one place of the palette, or an opacity for each
        found = opened(written(palette, "PNG", transparency=transparency))
        assert (found[np.asarray(palette) == 0] == 255).all()
        assert not (found == 255).all()
    grey = Image.fromarray(np.array([[7, 9]], np.uint8))
    assert opened(written(grey, "PNG", transparency=7))[0, :, 0].tolist() == [255, 9]


def test_sixteen_bits_are_scaled_not_cut():
    deep = np.array([[0, 256, 32768, 65535]], np.uint16)
    for given in (
        deep,
        Image.fromarray(deep),
        written(Image.fromarray(deep), "PNG"),
        written(Image.fromarray(deep), "TIFF"),
    ):
        assert opened(given)[0, :, 1].tolist() == [0, 1, 128, 255]
    assert opened(Image.fromarray(deep.astype(np.int32)))[0, :, 0].tolist() == [0, 1, 128, 255]
    fractions = np.array([[0, 0.5, 1]], np.float32)
    for given in (fractions, Image.fromarray(fractions), written(Image.fromarray(fractions), "TIFF")):
        assert opened(given)[0, :, 0].tolist() == [0, 128, 255]
    assert opened(Image.fromarray(np.array([[-3, 1, 5]], np.float32)))[0, :, 0].tolist() == [0, 128, 255]
    assert opened(Image.fromarray(np.array([[4, 4]], np.float32) * 2)).max() == 0
    with pytest.raises(DataError, match="not numbers"):
        opened(Image.fromarray(np.array([[np.nan, 1]], np.float32)))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_picture_is_taken(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    data = written(frames[0], kind, save_all=True, append_images=frames[1:])
    assert np.abs(opened(data).astype(int) - [255, 0, 0]).max() <= 3


def test_one_pixel_is_blown_up_and_twenty_thousand_are_brought_down(tmp_path):
    one = opened(written(Image.new("RGB", (1, 1), (10, 20, 30)), "PNG"))
    assert np.allclose(fitted(one, 224)[:, 5, 5], np.array([10, 20, 30]) / 255)
    wide = tmp_path / "wide.jpg"
    Image.new("L", (20_000, 5_000), 77).save(wide)
    picture = opened(wide)
    assert picture.shape == (2048, 8192, 3)
    assert np.unique(picture).tolist() == [77]
    strip = opened(written(Image.new("RGB", (20_000, 1), "red"), "PNG"))
    assert strip.shape == (1, 20_000, 3)
    start = time.perf_counter()
    assert np.allclose(fitted(strip, 224), np.array([1, 0, 0])[:, None, None], atol=0.01)
    assert fitted(strip.transpose(1, 0, 2), (64, 96)).shape == (3, 64, 96)
    assert time.perf_counter() - start < 2


def test_a_jpeg_is_made_smaller_while_it_is_decoded(monkeypatch):
    data = written(Image.fromarray(smooth(400, 800)), "JPEG")
    monkeypatch.setattr(pictures, "SHORTER", 100)
    sizes = []
    plain = pictures._plain
    monkeypatch.setattr(pictures, "_plain", lambda image: sizes.append(image.size) or plain(image))
    assert np.abs(opened(data).astype(int) - smooth(100, 200)).mean() < 4
    assert sizes == [(200, 100)]
    mine = Image.open(io.BytesIO(data))
    assert opened(mine).shape == (100, 200, 3)
    assert mine.size == (800, 400)  # the caller's own image is left as it was


def opens_or_says(data):
    try:
        return opened(data).shape[2] == 3
    except DataError as error:
        return bool(error.what and error.hint)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "JPEG2000"])
def test_a_file_that_is_cut_off_is_refused_wherever_it_is_cut(kind):
    data = written(Image.fromarray(NOISE), kind)
    with pytest.raises(DataError, match=r"cut off or broken|no picture"):
        opened(data[: len(data) // 2])
    for length in (3, 20, 40, 100, len(data) // 3, len(data) * 3 // 4):
        assert opens_or_says(data[:length])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "TGA", "PCX", "ICO", "PPM"])
def test_no_broken_file_ever_ends_in_anything_but_a_data_error(kind):
    data = written(Image.fromarray(NOISE), kind)
    rng = np.random.default_rng(1)
    for _ in range(60):
        broken = bytearray(data)
        for place in rng.integers(0, min(len(data), 400), 4):
            broken[place] = int(rng.integers(256))
        assert opens_or_says(bytes(broken))


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        (b"PK\x03\x04\x14\x00\x06\x00", "office"),
        (b"\x93NUMPY\x01\x00", "numpy"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "HEIC"),
        (b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2", "video"),
        (b'<?xml version="1.0"?><svg xmlns="x"></svg>', "SVG"),
        (b"\n<!DOCTYPE html><html><body>404</body></html>", "web page"),
        ("Lieber Leser, kein Bild – nur Wörter.".encode(), "a text"),
        (bytes(range(128, 200)), "no picture"),
        (b"\x00" * 64, "no picture"),
    ],
)
def test_what_is_no_picture_is_named_whatever_it_is_called(tmp_path, start, said):
    (tmp_path / "photo.jpg").write_bytes(start)
    for given in (tmp_path / "photo.jpg", start):
        with pytest.raises(DataError, match=said) as found:
            opened(given)
        assert "JPEG" in found.value.hint
    with pytest.raises(DataError, match=r"photo\.jpg"):
        opened(tmp_path / "photo.jpg")


def bomb(width, height):
    """A PNG that says how large it is and holds nothing."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_a_decompression_bomb_is_refused_from_its_header():
    limit = Image.MAX_IMAGE_PIXELS
    start = time.perf_counter()
    with pytest.raises(DataError, match=r"50,000 × 50,000 pixels, 2,500 million; at most 200 million"):
        opened(bomb(50_000, 50_000))
    assert time.perf_counter() - start < 1
    with pytest.raises(DataError, match="at most 200 million"):
        opened(bomb(200_001, 1_000))
    with pytest.raises(DataError, match="at most 200 million"):
        opened(np.broadcast_to(np.zeros((1, 1), np.uint8), (200_001, 1_000)))
    assert limit == Image.MAX_IMAGE_PIXELS


def test_between_pils_limit_and_ours_a_picture_opens_without_a_warning():
    image = Image.new("1", (10_000, 9_500), 1)  # 95 million; PIL would warn
    assert opened(written(image, "PNG")).shape == (2048, 2156, 3)


def test_places_that_hold_no_picture(tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    for given, said in (
        (tmp_path, "is a folder"),
        (tmp_path / "nothing.png", "There is no file"),
        (tmp_path / "empty.jpg", "is empty"),
        (b"", "is empty"),
        ("https://example.org/cat.jpg", "an address on the web"),
        ("a\0b", "cannot be read|no file"),
        ("x" * 5000, "cannot be read"),
        ("/dev/zero", "no ordinary file"),
        (None, "NoneType"),
        (7, "int"),
    ):
        with pytest.raises(DataError, match=said) as found:
            opened(given)
        assert found.value.hint


def test_arrays_of_all_kinds():
    grey = np.array([[0, 100, 255]], np.uint8)
    wanted = [[[0] * 3, [100] * 3, [255] * 3]]
    for given in (grey, grey[..., None], grey.astype(np.uint16) * 257, grey.astype(int), grey / 255):
        assert opened(given).tolist() == wanted
    assert opened(np.array([[True, False]]))[0, :, 2].tolist() == [255, 0]
    for given, said in (
        (np.zeros((0, 3, 3)), "no picture"),
        (np.zeros(5), "no picture"),
        (np.zeros((3, 8, 8)), "no picture"),
        (np.array([[300]]), "from 300 to 300"),
        (np.array([[-0.5, 1]]), "from -0.5 to 1"),
        (np.array([[np.nan]]), "not numbers"),
        (np.array([["a"]]), "holds no numbers"),
    ):
        with pytest.raises(DataError, match=said):
            opened(given)


@pytest.mark.parametrize(("rows", "columns"), [(300, 451), (451, 300), (256, 256), (100, 90), (2000, 700)])
@pytest.mark.parametrize(("size", "shorter"), [(224, 256), (227, 256), (32, 37), (384, 439)])
def test_fitted_is_resize_then_cut_out_the_middle(rows, columns, size, shorter):
    # Not to the ends of the scale: PIL clips between its two passes, and may take either first.
    picture = RNG.integers(60, 190, (rows, columns, 3), dtype=np.uint8)
    scale = shorter / min(rows, columns)
    whole = Image.fromarray(picture).resize((round(columns * scale), round(rows * scale)), Image.Resampling.BICUBIC)
    left, top = (whole.width - size) // 2, (whole.height - size) // 2
    expected = np.asarray(whole.crop((left, top, left + size, top + size))) / 255
    found = fitted(picture, size)
    assert found.dtype == np.float32
    assert found.shape == (3, size, size)
    assert np.abs(found.transpose(1, 2, 0) - expected).max() <= 2.01 / 255


def test_fitted_wants_an_opened_picture():
    for given in (np.zeros((8, 8)), np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8), np.zeros((0, 8, 3), np.uint8)):
        with pytest.raises(DataError, match="Open it first"):
            fitted(given, 4)
    with pytest.raises(UsageError, match="0 × 0"):
        fitted(NOISE, 0)


def test_threads_may_open_pictures_at_the_same_time():
    limit = Image.MAX_IMAGE_PIXELS
    data, found = written(Image.fromarray(NOISE), "PNG"), []
    threads = [threading.Thread(target=lambda: found.append(opened(data))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(np.array_equal(picture, NOISE) for picture in found)
    assert limit == Image.MAX_IMAGE_PIXELS
