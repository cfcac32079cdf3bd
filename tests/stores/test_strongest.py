"""The state of a long walk: whole or not there, and only for the work it belongs to."""

import numpy as np
import pytest

from neuralmine.errors import StoreError
from neuralmine.stores import strongest as store

ABOUT = {"weights": "abc", "layers": [["conv1", 8, 3, 3]], "count": 9}
ARRAYS = {"value": np.arange(6.0).reshape(2, 3), "image": np.zeros((2, 3), dtype=np.int64)}


def test_what_was_saved_comes_back(tmp_path):
    assert store.load(tmp_path / "new", ABOUT) is None
    store.save(tmp_path / "new", ABOUT, 64, ARRAYS)
    begin, arrays = store.load(tmp_path / "new", ABOUT)
    assert begin == 64
    for key, array in ARRAYS.items():
        assert arrays[key].dtype == array.dtype
        assert np.array_equal(arrays[key], array)
    store.save(tmp_path / "new", ABOUT, 128, ARRAYS)
    assert store.load(tmp_path / "new", ABOUT)[0] == 128
    assert [path.name for path in (tmp_path / "new").iterdir()] == [store.FILE]


def test_other_work_is_refused_by_what_differs(tmp_path):
    store.save(tmp_path, ABOUT, 64, ARRAYS)
    with pytest.raises(StoreError, match=r"differs in count: there 9, now 4; batch: there null, now 2\."):
        store.load(tmp_path, {**ABOUT, "count": 4, "batch": 2})


def test_what_cannot_be_read_is_said(tmp_path):
    path = store.save(tmp_path, ABOUT, 64, ARRAYS)
    whole = path.read_bytes()
    for content in (b"", b"PK", whole[:100], whole[: len(whole) // 2], b"nonsense"):
        path.write_bytes(content)
        with pytest.raises(StoreError, match="cannot be read"):
            store.load(tmp_path, ABOUT)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="is a file"):
        store.load(tmp_path / "file", ABOUT)
