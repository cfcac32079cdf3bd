"""Studies: one file a claim. Each brings its own data, measures against a null, and ends in a Verdict."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path

from ..errors import UnknownName
from ..lens import first_lines, left_as_found
from ..types import Verdict


def names() -> Mapping[str, str]:
    """Every study's name and first line, without importing any."""
    return first_lines(Path(__file__).parent)


def study(name: str, *, seed: int = 0) -> Verdict:
    """Run a study: the same seed gives the same figures. Raises UnknownName.

    >>> study("one_or_zero").verdict
    'holds'
    """
    name = name.replace("-", "_")
    if name not in names():
        raise UnknownName("study", name, names())
    function = getattr(importlib.import_module(f"{__name__}.{name}"), name)
    with left_as_found([]):
        return function(seed=seed)
