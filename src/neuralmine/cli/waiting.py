"""A progress bar on standard error for work that takes its time, gone when it is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ..progress import heard


@contextmanager
def waiting(name: str, quiet: bool = False) -> Iterator[None]:
    """A bar while the work inside goes on, on a terminal that is not `quiet`."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    err = Console(stderr=True)
    with Progress(*columns, console=err, transient=True, disable=quiet or not err.is_terminal) as bar:
        task = bar.add_task(name, total=None)  # it only moves, until something is heard

        def hear(done: float, words: str) -> None:
            bar.update(task, total=1.0, completed=done, description=f"{name}: {words}" if words else name)

        with heard(hear):
            yield
