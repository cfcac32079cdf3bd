"""Pictures as files: pixels come back, one frame a picture, and the notes can be read."""

import numpy as np
import pytest
from PIL import Image

from neuralmine.errors import StoreError, UnknownName, UsageError
from neuralmine.moving import notes_of, sheet, thumbnails, write_frames, write_picture

ABOUT = {"seed": 5, "layers": ["a", "b"], "photo": 'né <&> "{}" = ; # \\ 1'}


@pytest.fixture
def frames():
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (31, 40, 3), dtype=np.uint8) for _ in range(4)]


def test_a_picture_keeps_its_pixels_and_its_notes(frames, tmp_path):
    path = write_picture(frames[0], tmp_path / "a.png", ABOUT)
    assert np.array_equal(np.array(Image.open(path)), frames[0])
    assert notes_of(path) == ABOUT


def test_a_gif_has_one_frame_a_picture_also_when_they_are_alike(frames, tmp_path):
    path = write_frames([frames[0], frames[0], *frames], tmp_path / "a.gif", seconds=0.5, about=ABOUT)
    with Image.open(path) as image:
        assert image.n_frames == 6
        assert image.size == (40, 31)
        assert image.info["loop"] == 0
        shown = []
        for k in range(6):
            image.seek(k)
            assert image.info["duration"] == 500
            shown.append(np.array(image.convert("RGB")).astype(float))
    assert np.abs(shown[2] - frames[0]).mean() < 30  # 256 colours
    assert np.abs(shown[3] - frames[0]).mean() > 60
    assert notes_of(path) == ABOUT
    assert path.read_bytes() == write_frames([frames[0], frames[0], *frames], tmp_path / "b.gif", seconds=0.5, about=ABOUT).read_bytes()  # fmt: skip


def test_a_webp_is_lossless(frames, tmp_path):
    path = write_frames(frames, tmp_path / "a.webp", about=ABOUT)
    with Image.open(path) as image:
        assert image.n_frames == 4
        for k, frame in enumerate(frames):
            image.seek(k)
            assert np.array_equal(np.array(image.convert("RGB")), frame)
    assert notes_of(path) == ABOUT


def test_an_mp4_shows_each_picture_for_its_time(tmp_path):
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    frames = [np.full((64, 81, 3), value, np.uint8) for value in (20, 120, 220)]
    path = write_frames(frames, tmp_path / "a.mp4", seconds=0.4, about=ABOUT)
    reader = imageio_ffmpeg.read_frames(str(path))
    about = next(reader)
    seen = [np.frombuffer(frame, np.uint8).mean() for frame in reader]
    assert about["size"] == (80, 64)
    assert len(seen) == 30  # 3 × 0.4 s at 25 a second
    assert np.abs(np.array(seen[::10]) - [20, 120, 220]).max() < 4
    assert notes_of(path) == ABOUT


def test_names_are_written_below(frames, tmp_path):
    path = write_frames(frames, tmp_path / "a.webp", names=["one", "two", "three", "four"])
    with Image.open(path) as image:
        seen = np.array(image.convert("RGB"))
    assert seen.shape[0] > 31
    assert np.array_equal(seen[:31], frames[0])
    assert len(np.unique(seen[31:].reshape(-1, 3), axis=0)) > 2


def test_a_sheet_shows_every_picture(frames):
    plain = [np.full((30, 40, 3), value, np.uint8) for value in (0, 60, 120, 180)]
    whole = sheet(plain, ["a", "b", "c", "d"], 400)
    for value in (0, 60, 120, 180):
        assert (whole == value).all(-1).sum() > 1000
    assert thumbnails(frames, 20).shape == (4, 16, 20, 3)
    assert np.array_equal(thumbnails(frames, 40), np.stack(frames))


def test_bad_input_says_what_is_right(frames, tmp_path):
    with pytest.raises(UnknownName, match=r"\.gif"):
        write_frames(frames, tmp_path / "a.avi")
    with pytest.raises(UsageError, match="no pictures"):
        write_frames([], tmp_path / "a.gif")
    with pytest.raises(UsageError, match="different sizes"):
        write_frames([frames[0], frames[1][:5]], tmp_path / "a.gif")
    with pytest.raises(UsageError, match="8 bits"):
        write_frames([frames[0] / 255], tmp_path / "a.gif")
    with pytest.raises(UsageError, match="seconds"):
        write_frames(frames, tmp_path / "a.gif", seconds=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        write_picture(frames[0], tmp_path / "file" / "a.png")
    (tmp_path / "no.gif").write_bytes(b"no")
    with pytest.raises(StoreError):
        notes_of(tmp_path / "no.gif")
    Image.fromarray(frames[0]).save(tmp_path / "other.png")
    assert notes_of(tmp_path / "other.png") == {}
