"""How far long work is: whoever does it goes `over` its parts, and whoever waits has `heard` how far it got.

Parts may have parts of their own: each fills its share of the whole. Nobody listening costs nothing.

    with heard(lambda done, words: print(f"{done:.0%} {words}")):
        for layer in over(layers, "layer"):
            for step in over(range(10), "step"):
                ...
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from .errors import NeuralmineError

T = TypeVar("T")
Listener = Callable[[float, str], None]  # the share that is done, 0 to 1, and what is being done; may raise Stopped

_now: ContextVar[tuple[Listener, float, float, str] | None] = ContextVar("progress", default=None)


class Stopped(NeuralmineError):
    """Somebody called the work off."""


@contextmanager
def heard(listener: Listener) -> Iterator[None]:
    """Inside, `listener` is told how far the work is."""
    token = _now.set((listener, 0.0, 1.0, ""))
    try:
        yield
    finally:
        _now.reset(token)


def over(items: Collection[T], what: str, *, until: float = 1.0) -> Iterator[T]:
    """The items one after the other, each an equal share of the work; with `until`, of its first part only.

    What follows has the rest: `over(layers, "layer", until=0.6)`, then `over(checks, "check")`.

    >>> said = []
    >>> with heard(lambda done, words: said.append((round(done, 2), words))):
    ...     for _ in over("ab", "layer"):
    ...         list(over(range(2), "step"))
    [0, 1]
    [0, 1]
    >>> said[:3], said[-1]
    ([(0.0, 'layer 1 of 2'), (0.0, 'layer 1 of 2, step 1 of 2'), (0.25, 'layer 1 of 2, step 2 of 2')], (1.0, ''))
    """
    now = _now.get()
    if now is None:
        yield from items
        return
    listener, low, high, around = now
    end, count = low + (high - low) * until, len(items)
    try:
        for i, item in enumerate(items):
            words = f"{around}, {what} {i + 1} of {count}".removeprefix(", ")
            begin = low + (end - low) * i / count
            listener(begin, words)
            _now.set((listener, begin, low + (end - low) * (i + 1) / count, words))
            yield item
        listener(end, around)
    finally:
        left = _now.get()
        if left is not None and left[0] is listener:  # not where a generator is closed after the work
            _now.set((listener, end, high, around))
