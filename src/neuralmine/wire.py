"""One way for nouns to travel: a JSON document with the arrays beside it, as they lie in memory."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def pack(value: Any) -> tuple[Any, list[np.ndarray]]:
    """A JSON document and the arrays it refers to as `{"$array": index, "shape": …, "dtype": …}`.

    Dataclasses become objects; one with a `kind` says so in a field of that name. Not-a-number and infinities,
    which JSON lacks, become the strings "nan", "inf" and "-inf".

    >>> pack({"a": np.zeros(2)})[0]
    {'a': {'$array': 0, 'shape': [2], 'dtype': 'float64'}}
    """
    arrays: list[np.ndarray] = []

    def walk(item: Any) -> Any:
        if isinstance(item, np.ndarray):
            arrays.append(np.ascontiguousarray(item))
            return {"$array": len(arrays) - 1, "shape": list(item.shape), "dtype": str(item.dtype)}
        if dataclasses.is_dataclass(item) and not isinstance(item, type):
            fields = {f.name: walk(getattr(item, f.name)) for f in dataclasses.fields(item)}
            return {"kind": item.kind, **fields} if hasattr(item, "kind") and "kind" not in fields else fields  # type: ignore[union-attr]
        if isinstance(item, Mapping):
            return {str(key): walk(entry) for key, entry in item.items()}
        if isinstance(item, (list, tuple)):
            return [walk(entry) for entry in item]
        if isinstance(item, np.generic):
            item = item.item()
        if isinstance(item, float) and not math.isfinite(item):
            return str(item)
        if item is None or isinstance(item, (str, int, float, bool)):
            return item
        if isinstance(item, Path):
            return str(item)
        raise TypeError(f"{type(item).__name__} cannot travel: findings hold numpy arrays, numbers and text only")

    return walk(value), arrays


def frame(value: Any) -> bytes:
    """`value` as one binary message: 4 bytes (little endian) length of the JSON, the JSON, then the arrays.

    The JSON is padded so that every array begins at a multiple of 8 bytes, ready to be viewed in place.
    """
    document, arrays = pack(value)
    offset, offsets = 0, []
    for array in arrays:
        offsets.append(offset)
        offset += -(-array.nbytes // 8) * 8
    head = json.dumps({"document": document, "offsets": offsets}, ensure_ascii=False).encode()
    head += b" " * (-(4 + len(head)) % 8)
    body = b"".join(array.tobytes() + b"\0" * (-array.nbytes % 8) for array in arrays)
    return len(head).to_bytes(4, "little") + head + body
