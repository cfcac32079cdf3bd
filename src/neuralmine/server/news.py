"""Work in the background as its page hears of it: every change is counted, and each report is of one moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..errors import NeuralmineError

QUIET = 10  # seconds without news, after which an empty report keeps the line open


@dataclass(eq=False)
class News:
    """What a thread changes while requests read it: both hold `changed`. `_report` says what the page is told of it."""

    LAST: ClassVar[tuple[str, ...]] = ()  # the statuses after which nothing more comes
    REST: ClassVar[float] = 0.0  # seconds between two reports, at least

    version: int = field(default=0, kw_only=True)
    changed: threading.Condition = field(default_factory=threading.Condition, kw_only=True)

    def _report(self) -> dict[str, Any]:
        raise NotImplementedError

    def report(self) -> dict[str, Any]:
        """How far it is, all of one moment."""
        with self.changed:
            return {**self._report(), "version": self.version}

    def tell(self, **news: Any) -> None:
        """Change what is given, and wake whoever waits for news."""
        with self.changed:
            for name, value in news.items():
                setattr(self, name, value)
            self.version += 1
            self.changed.notify_all()

    def reports(self) -> Iterator[dict[str, Any]]:
        """The reports as they change, the newest only; an empty one now and then keeps the line open. Ends with the work."""
        seen = -1
        while True:
            with self.changed:
                news = self.changed.wait_for(lambda seen=seen: self.version != seen, timeout=QUIET)
                report = self.report()
            seen = report["version"]
            yield report if news else {}
            if report["status"] in self.LAST:  # of what was sent, not the work's own: it may have ended since
                return
            time.sleep(self.REST)


def failure(error: Exception) -> str:
    """An error in the words of a report: ours say what to do, any other says its kind."""
    return str(error) if isinstance(error, NeuralmineError) else f"{type(error).__name__}: {error}"
