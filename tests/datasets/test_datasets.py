"""Data from files made here by other means: struct-built IDX files, hand-written CSVs, pictures by Pillow."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from neuralmine import datasets
from neuralmine.errors import DataError, UnknownName

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def idx(array, kind=8):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


@pytest.fixture
def mnist_folder(tmp_path):
    generator = np.random.default_rng(0)
    for part, count in (("train", 5), ("t10k", 3)):
        images = generator.integers(0, 256, (count, 28, 28))
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (tmp_path / f"{part}-labels.idx1-ubyte").write_bytes(idx(np.arange(count)))
    return tmp_path


def test_idx_files_are_read_with_their_published_split(mnist_folder):
    data = datasets.load(mnist_folder)
    assert data.images.shape == (8, 28, 28)
    assert list(data.labels) == [0, 1, 2, 3, 4, 0, 1, 2]
    train, test = data.split()
    assert (len(train), len(test)) == (5, 3)
    raw = np.frombuffer(gzip.decompress((mnist_folder / "t10k-images-idx3-ubyte.gz").read_bytes())[16:], np.uint8)
    assert np.allclose(test.images.ravel(), raw / 255)


@pytest.mark.parametrize(
    ("content", "says"), [(b"", "no IDX"), (b"PNG.....", "no IDX"), (idx(np.zeros((2, 28, 28)))[:-9], "cut short")]
)
def test_broken_idx_files_are_named(mnist_folder, content, says):
    (mnist_folder / "train-images-idx3-ubyte.gz").unlink()
    (mnist_folder / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(DataError, match=says) as error:
        datasets.load(mnist_folder)
    assert "train-images" in str(error.value)


def test_a_csv_with_a_heading_words_as_labels_and_a_square_picture(tmp_path):
    file = tmp_path / "data.csv"
    file.write_text("a,label,b,c,d\n0,cat,8,0,0\n4,dog,0,0,16\n")
    data = datasets.load(file)
    assert data.classes == ("cat", "dog")
    assert data.shape == (2, 2)
    assert data.images[1].tolist() == [[0.25, 0], [0, 1]]
    assert datasets.load(file, label="label").labels.tolist() == [0, 1]
    with pytest.raises(UnknownName, match="label"):
        datasets.load(file, label="lable")


@pytest.mark.parametrize(("text", "says"), [
    ("", "empty"), ("a,b,label\n", "no rows"), ("1,2,0\n1,0\n", "line 2 has 2"), ("1,2,0\n1,nan,1\n", "line 2: value 2"),
    ("1,2,0\n1,x,1\n", "'x'"), ("1,2,0\n3,4,0\n", "only one class"), ("1\n2\n", "one column"),
])  # fmt: skip
def test_bad_csv_files_say_where_and_what(tmp_path, text, says):
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(DataError, match=says):
        datasets.load(tmp_path / "bad.csv")


def test_a_folder_of_pictures_turns_dark_strokes_into_ink(tmp_path):
    for name, dark in (("left", 0), ("right", 5)):
        (tmp_path / name).mkdir()
        picture = np.full((6, 6), 255, np.uint8)
        picture[2:4, dark if dark < 4 else 4] = 0
        for i in range(2):
            Image.fromarray(picture).save(tmp_path / name / f"{i}.png")
    (tmp_path / "left" / "notes.txt").write_text("no picture")
    data = datasets.load(tmp_path)
    assert data.classes == ("left", "right")
    assert data.images.shape == (4, 6, 6)
    assert data.images[0].sum() == 2
    assert "turned over" in data.note
    assert "notes.txt" in data.note
    assert datasets.load(tmp_path, size=(3, 3)).shape == (3, 3)


def test_folders_that_cannot_be_used_say_why(tmp_path):
    with pytest.raises(DataError, match="no pictures"):
        datasets.load(tmp_path)
    for name, size in (("a", (4, 4)), ("b", (5, 4))):
        (tmp_path / name).mkdir()
        Image.new("L", size).save(tmp_path / name / "x.png")
    with pytest.raises(DataError, match="mixed sizes"):
        datasets.load(tmp_path)
    (tmp_path / "b" / "x.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="cannot be read"):
        datasets.load(tmp_path)


def test_a_random_split_is_scikit_learns_and_shares_nothing(digits):
    from sklearn.model_selection import train_test_split

    train, test = digits.split_indices(0.25, 3)
    wanted = train_test_split(np.arange(1797), test_size=0.25, random_state=3)
    assert np.array_equal(train, wanted[0])
    assert not set(train) & set(test)


@pytest.mark.skipif(not (SHARED / "optdigits").is_dir(), reason="the full optdigits files are not here")
def test_the_test_part_of_optdigits_is_what_scikit_learn_ships(digits):
    data = datasets.load(SHARED / "optdigits")
    train, test = data.split()
    assert (len(train), len(test)) == (3823, 1797)
    assert np.array_equal(test.images, digits.images)
    assert np.array_equal(test.labels, digits.labels)
