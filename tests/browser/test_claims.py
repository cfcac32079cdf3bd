"""The Claims page: a study says how far it is, can be stopped and asked for again, and nothing is wider than a phone."""

import json
import urllib.request

import pytest

from .conftest import soon, violations


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 390)])
def test_a_claim_says_how_far_it_is_stops_and_shows_its_figures(open_page, server, scheme, width):
    page = open_page(width=width, scheme=scheme, strict=False)
    page.goto(server.url("/claims?seed=7" if width > 720 else "/claims"))
    if width > 720:
        page.wait_for_selector("[aria-label='Under way'] progress")
        page.wait_for_selector(".now >> text=Measuring now: start")
        assert violations(page) == []
        page.click("[aria-label='Under way'] button")
        page.wait_for_selector("[role=alert] >> text=stopped")
        assert page.locator("[role=alert] button:has-text('Try again')").count() == 1
        return
    page.get_by_label("Do the first hidden neurons of a trained digit net").scroll_into_view_if_needed()
    page.wait_for_selector("article.claim", timeout=300_000)
    page.locator("section button:has-text('See the figures')").first.click()
    page.wait_for_selector("section .menu, section figure, section svg")
    wide = "[...document.querySelectorAll('.page section, .page article')].filter(e => e.getBoundingClientRect().right > innerWidth + 1).length"
    assert page.evaluate(wide) == 0
    assert violations(page) == []


def test_a_link_to_one_claim_goes_there_and_who_leaves_stops_it(open_page, server):
    page, tickets = open_page(), []
    page.on("request", lambda request: tickets.append(request.headers.get("neuralmine-ticket")))
    page.goto(server.url("/claims?claim=many_domains"))
    page.wait_for_selector(".now >> text=Measuring now: start")
    assert "pictures, measurements" in page.inner_text(".now")
    ticket = next(filter(None, tickets))

    def under_way():
        with urllib.request.urlopen(server.url(f"/api/underway/{ticket}")) as answer:
            return json.load(answer) is not None

    assert under_way()
    page.goto(server.url("/learning/layers?piece=dense"))
    soon(under_way, False)
