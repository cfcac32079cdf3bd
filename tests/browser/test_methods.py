"""The Methods part of Learning, used as a person would: open a bin, let the experiments run, stop one."""

import pytest

from .conftest import soon, violations

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser methods")]


def opened(page, server, query="?net=64-10"):
    page.goto(server.url(f"/learning/methods{query}"))
    page.wait_for_selector("[role=status] >> text=ECE", timeout=60_000)
    return page


def test_a_bin_opens_to_its_arithmetic_and_its_images(open_page, server):
    import neuralmine as nm

    page = opened(open_page(), server)
    numbers = nm.look("calibration", nm.load("64-10"), nm.datasets.load("digits").split()[1], bins=10).numbers
    page.keyboard.press("]")
    page.wait_for_selector(".inspector >> text=part of ECE")
    page.wait_for_selector(f".inspector >> text={numbers['count'][0]} of 450")
    page.wait_for_selector(f".inspector >> text={numbers['count'][0]} ÷ 450")
    soon(page.locator(".inspector figure").count, min(24, int(numbers["count"][0])))
    page.wait_for_function("location.search.includes('row=0')")
    link = page.url
    page.goto(link)  # a link opens exactly this
    page.wait_for_selector(".inspector >> text=part of ECE", timeout=60_000)
    page.keyboard.press("Escape")
    page.wait_for_selector(".inspector >> text=Choose a bin")


def test_growing_data_runs_to_a_law_and_a_size_opens(open_page, server):
    page = open_page()
    page.goto(server.url("/learning/methods?net=64-10&show=scaling&seeds=2&updates=20"))
    page.wait_for_selector("text=Extrapolated to", timeout=120_000)
    page.click("button:has-text('1010')")
    page.wait_for_selector(".inspector >> text=nearest mean image")
    assert "×" in page.inner_text(".inspector")


def test_ingredients_run_stop_and_run_again(open_page, server):
    page = open_page()
    page.goto(server.url("/learning/methods?net=64-10&show=ablation&seeds=2&epochs=500&limit=60"))
    page.click("button:has-text('Stop')")
    page.wait_for_selector("text=Stopped: what was measured")
    page.fill("label:has-text('epochs') input", "1")
    page.press("label:has-text('epochs') input", "Tab")
    page.click("button:has-text('Run again')")
    page.wait_for_selector("text=Plain recipe:", timeout=120_000)
    page.click("button:has-text('weight_decay')")
    page.wait_for_selector(".inspector >> text=after Holm")
    page.wait_for_selector(".inspector >> text=differences")
    soon(page.locator(".bars .interval").count, page.locator(".bars .bar").count())


def test_a_temperature_at_the_edge_of_what_is_tried_says_so(open_page, server):
    page = opened(open_page(), server, "?net=best")
    page.wait_for_selector("[role=note] >> text=No temperature fits")
    page.wait_for_selector("[role=note] >> text=0.02 to 50")


def test_a_network_that_does_not_exist_says_so(open_page, server):
    page = open_page(strict=False)
    page.goto(server.url("/learning/methods?net=64-11"))
    page.wait_for_selector("[role=alert] >> text=64-11")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 390)])
def test_axe_finds_nothing(open_page, server, scheme, width):
    page = opened(open_page(width=width, scheme=scheme), server, "?net=64-10&row=3")
    page.wait_for_selector(".inspector >> text=part of ECE")
    assert violations(page) == []
    page.goto(server.url("/learning/methods?net=64-10&show=scaling&seeds=2&updates=20"))
    page.wait_for_selector("text=Extrapolated to", timeout=120_000)
    assert violations(page) == []
