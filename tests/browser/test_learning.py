"""The Learning page, used as a person would: race, scrub, look at one, change the start."""

import pytest

from .conftest import violations

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]
QUICK = "?net=64-10&race=gradient_descent,sgd,adam&steps=8&lr=gradient_descent=1,sgd=0.5,adam=0.01"


def raced(page, server, query=QUICK):
    page.goto(server.url(f"/learning{query}"))
    page.wait_for_selector("text=3 optimizers, 8 steps, one start.", timeout=120_000)
    return page


def losses(page):
    rows = page.locator("caption:has-text('the best first') ~ tbody tr").all_inner_texts()
    return {row.split("\t")[0].strip(): row.split("\t")[1] for row in rows}


def test_a_race_shows_exact_losses_and_scrubs(open_page, server):
    import neuralmine as nm

    page = raced(open_page(), server)
    data = nm.datasets.load("digits").split(test=0.25, seed=0)[0]
    finding = nm.look(
        "optimizer_race", nm.load("64-10"), data, optimizers="gradient_descent,sgd,adam", steps=8, batch=32, seed=0,
        lr="gradient_descent=1,sgd=0.5,adam=0.01", start="random",
    )  # fmt: skip
    wanted = dict(zip(("Gradient descent (all images)", "SGD", "Adam"), finding.numbers["loss"][:, -1], strict=True))
    assert {name: float(text) for name, text in losses(page).items()} == pytest.approx(wanted, rel=1e-3)
    page.locator("h1").evaluate("document.activeElement.blur()")
    page.keyboard.press("[")
    page.wait_for_selector("text=step 7 of 8")
    before = losses(page)
    page.keyboard.press("]")
    assert losses(page) != before
    page.click("table >> text=Adam")
    assert "images sent through" in page.inner_text(".inspector")


def test_the_same_start_gives_the_same_race(open_page, server):
    first = losses(raced(open_page(), server))
    assert losses(raced(open_page(), server)) == first
    assert losses(raced(open_page(), server, QUICK + "&seed=5")) != first


def test_too_few_optimizers_say_so(open_page, server):
    page = raced(open_page(strict=False), server)
    for name in ("SGD", "Adam"):
        page.get_by_role("checkbox", name=name, exact=True).uncheck()
    page.click("button:has-text('Race')")
    page.wait_for_selector("[role=alert] >> text=at least two")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 390)])
def test_axe_finds_nothing(open_page, server, scheme, width):
    page = raced(open_page(width=width, scheme=scheme), server)
    page.wait_for_timeout(500)
    assert violations(page) == []
