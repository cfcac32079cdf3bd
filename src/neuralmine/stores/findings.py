"""Findings on disk: read back what Finding.save wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from .. import views
from ..errors import StoreError
from ..types import Check, Finding

_KINDS = {
    view.kind: view
    for view in (
        views.Bars,
        views.Graph,
        views.Grid,
        views.Lines,
        views.Overlay,
        views.Picture,
        views.Surface,
        views.Table,
    )
}


def load_finding(folder: Path | str) -> Finding:
    """The finding saved in `folder`, equal to the one that was saved. Raises StoreError when it is not one.

    >>> import tempfile, neuralmine as nm
    >>> finding = nm.look("weights", nm.load("digits"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     again = load_finding(finding.save(folder + "/weights"))
    >>> bool((again.numbers["weight"] == finding.numbers["weight"]).all())
    True
    """
    folder = Path(folder)
    try:
        document = json.loads((folder / "finding.json").read_text())
        with np.load(folder / "arrays.npz", allow_pickle=False) as file:
            arrays = [file[f"a{i}"] for i in range(len(file.files))]
        found = _filled(document, arrays)
        return Finding(
            numbers=found["numbers"],
            views=tuple(_KINDS[view.pop("kind")](**_tuples(view)) for view in found["views"]),
            checks=tuple(Check(**_tuples(check)) for check in found["checks"]),
            summary=found["summary"],
            lens=found["lens"],
            params=found["params"],
            provenance=found["provenance"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{folder} holds no readable finding: {error}.", "Save it again with finding.save(…)."
        ) from error


def _filled(value: Any, arrays: list[np.ndarray]) -> Any:
    if isinstance(value, dict):
        if "$array" in value:
            return arrays[value["$array"]].reshape(value["shape"])
        return {key: _filled(entry, arrays) for key, entry in value.items()}
    if isinstance(value, list):
        return [_filled(entry, arrays) for entry in value]
    return value


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    def walk(value: Any) -> Any:
        return tuple(walk(entry) for entry in value) if isinstance(value, list) else value

    return {key: walk(entry) for key, entry in fields.items()}
