"""Work in the background, as its page hears of it."""

import threading
from dataclasses import dataclass

from neuralmine.server import news
from neuralmine.server.news import News, failure


@dataclass(eq=False)
class Count(News):
    LAST = ("done",)
    status: str = "running"
    number: int = 0

    def _report(self):
        return {"status": self.status, "number": self.number}


def test_the_last_report_is_sent_though_the_work_ends_while_another_is_on_its_way():
    work = Count()
    told = work.reports()
    assert next(told) == {"status": "running", "number": 0, "version": 0}
    work.tell(number=1)
    work.tell(status="done", number=2)
    assert list(told) == [{"status": "done", "number": 2, "version": 2}]
    assert [report["number"] for report in work.reports()] == [2]  # and to whoever asks when all is over


def test_whoever_waits_is_woken():
    work, heard = Count(), []
    told = work.reports()
    next(told)
    reader = threading.Thread(target=lambda: heard.extend(told))
    reader.start()
    work.tell(status="done")
    reader.join(timeout=5)
    assert [report["status"] for report in heard] == ["done"]


def test_an_empty_report_keeps_the_line_open(monkeypatch):
    monkeypatch.setattr(news, "QUIET", 0.01)
    told = Count().reports()
    assert next(told)["status"] == "running"
    assert next(told) == {}


def test_an_error_of_another_kind_says_its_kind():
    assert failure(KeyError("a")) == "KeyError: 'a'"
