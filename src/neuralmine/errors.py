"""Every error Neuralmine raises on purpose.

    NeuralmineError             something the reader can act on
    ├── UsageError              what was asked cannot be done as asked
    │   └── UnknownName         a name that does not exist, with the nearest ones that do
    ├── DataError               data that cannot be read or used
    ├── NetworkError            a network that cannot be loaded, run or traced
    └── StoreError              something on disk that cannot be read or written

Each says what was given and what is allowed (`what`) and what to do next (`hint`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NeuralmineError(Exception):
    """What went wrong, and what to do about it."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what, hint)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what} {self.hint}".strip()


class UsageError(NeuralmineError, ValueError):
    """What was asked cannot be done as asked."""


class UnknownName(UsageError, LookupError):
    """A name that does not exist, with the nearest ones that do."""

    def __init__(self, kind: str, given: object, allowed: Iterable[str]) -> None:
        names = [str(name) for name in allowed]
        near = difflib.get_close_matches(str(given), names, n=3, cutoff=0.5)
        shown = ", ".join(names[:24]) + (f", … ({len(names)} in all)" if len(names) > 24 else "")
        super().__init__(
            f"There is no {kind} {str(given)!r}.",
            (f"Did you mean {' or '.join(repr(n) for n in near)}? " if near else "")
            + (f"There is: {shown}." if names else f"There is no {kind} at all here."),
        )
        self.kind, self.given, self.near = kind, given, near

    def __reduce__(self):
        return (NeuralmineError, (self.what, self.hint))


class DataError(NeuralmineError, ValueError):
    """Data that cannot be read or used."""


class NetworkError(NeuralmineError):
    """A network that cannot be loaded, run or traced."""


class StoreError(NeuralmineError, OSError):
    """Something on disk that cannot be read or written."""

    def __str__(self) -> str:
        return NeuralmineError.__str__(self)
