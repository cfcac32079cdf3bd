"""Answers that take their time: how far each is, by the ticket it was asked for with, and whether it was called off."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ..progress import Stopped, heard


@dataclass
class Work:
    done: float = 0.0
    words: str = ""
    stop: bool = False
    begun: float = field(default_factory=time.monotonic)

    def hear(self, done: float, words: str) -> None:
        if self.stop:
            raise Stopped("It was stopped before it was done.", "Ask again when you want it.")
        self.done, self.words = done, words

    def report(self) -> dict[str, Any]:
        taken = time.monotonic() - self.begun
        # In the first moments the share says little about the rest.
        left = taken * (1 - self.done) / self.done if taken > 1 and self.done > 0.02 else None
        return {"done": self.done, "words": self.words, "left": left}


_works: dict[str, Work] = {}


@contextmanager
def told(ticket: str) -> Iterator[None]:
    """Inside, `of(ticket)` says how far the work is; with no ticket nobody asks."""
    if not ticket:
        yield
        return
    work = _works[ticket] = Work()
    try:
        with heard(work.hear):
            yield
    finally:
        _works.pop(ticket, None)


def report(ticket: str) -> dict[str, Any] | None:
    """How far the work of that ticket is; None when it is done, or says nothing of itself."""
    work = _works.get(ticket)
    return work.report() if work and work.words else None


def stop(ticket: str) -> None:
    """Call the work of that ticket off, if it still goes on: it ends with Stopped where it next says how far it is."""
    if ticket in _works:
        _works[ticket].stop = True
