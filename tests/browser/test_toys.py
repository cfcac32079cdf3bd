"""Toy problems, used as a person would: train, open a neuron, drag its weight, undo, send the link, take the activation away."""

import re

import pytest

from .conftest import soon, violations

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser toys")]


def opened(page, server, query="?"):
    """The page at rest: it would train by itself."""
    page.goto(server.url(f"/learning/toys{query}&play=0"))
    page.wait_for_selector("#neuron-0-0")
    return page


def accuracy(page):
    found = re.search(r"([\d.]+) % of the training", page.inner_text(".status"))
    return float(found[1]) if found else None


def test_it_opens_working_and_comes_to_rest(open_page, server):
    page = open_page()
    page.goto(server.url("/learning/toys"))
    page.wait_for_selector(".status >> text=updates:")
    page.wait_for_selector("button:has-text('Play')")
    page.wait_for_function("location.search.includes('weights=')")
    assert accuracy(page) > 90
    assert int(re.search(r"([\d,]+) updates", page.inner_text(".status"))[1].replace(",", "")) >= 60
    still = open_page()
    still.emulate_media(reduced_motion="reduce")
    still.goto(server.url("/learning/toys"))
    still.wait_for_selector("text=The curves begin with the first update")
    still.wait_for_function("location.search.includes('play=0')")
    assert "An untrained net" in still.inner_text(".status")


def test_it_learns_before_ones_eyes_and_the_link_opens_it_again(open_page, server):
    page = opened(open_page(), server, "?hidden=4&lr=0.1&speed=fast")
    page.keyboard.press(" ")
    page.wait_for_function("document.querySelector('.status').innerText.includes('100.0 % of the training')")
    page.click("button:has-text('Pause')")
    page.wait_for_function("location.search.includes('weights=')")
    said = page.inner_text(".status")
    reached = re.search(r"([\d,]+) updates", said)[1].replace(",", "")
    page.wait_for_url(f"**updates={reached}&**")
    other = open_page()
    other.goto(page.url)
    other.wait_for_selector("text=updates:")
    soon(lambda: other.inner_text(".status"), said)


def test_a_neuron_opens_to_its_sum_and_follows_a_dragged_weight(open_page, server):
    page = opened(open_page(), server, "?place=0.5,-0.5")
    page.click("#neuron-0-2")
    side = page.locator(".inspector")
    side.locator("table").wait_for()

    def numbers():
        # x1, w1, product, x2, w2, product, bias, sum
        return [
            float(t.replace("−", "-").replace("×", ""))
            for t in side.locator("td.number, td span.number").all_inner_texts()
        ]

    x1, w1, p1, x2, w2, p2, bias, total = numbers()
    assert (x1, x2) == (0.5, -0.5)
    assert p1 == pytest.approx(x1 * w1, rel=0.01)
    assert p2 == pytest.approx(x2 * w2, rel=0.01)
    assert total == pytest.approx(p1 + p2 + bias, abs=0.01)
    slider = side.get_by_label("Weight from x₁")
    slider.fill("3")
    page.wait_for_function("document.querySelector('.inspector tbody td span.number').innerText.includes('× 3')")
    soon(lambda: numbers()[-1], pytest.approx(1.5 + p2 + bias, abs=0.01))
    slider.evaluate("node => node.blur()")
    page.keyboard.press("Control+z")
    page.wait_for_function("!document.querySelector('.inspector tbody td span.number').innerText.includes('× 3')")
    soon(lambda: numbers()[1], w1)
    page.click("#neuron-1-0")
    side.get_by_role("button", name="layer 1 neuron 3").click()
    side.locator("h2:has-text('layer 1 neuron 3')").wait_for()


def test_without_activation_the_layers_are_one_matrix(open_page, server):
    page = opened(open_page(), server, "?hidden=4,4")
    page.click("button:has-text('Take the activation away')")
    page.wait_for_selector("text=3 layers can do no more than one")
    matrices = page.locator(".matrix")
    soon(lambda: len(set(matrices.all_inner_texts()[:2])), 1)
    page.click("button:has-text('Its curve')")
    page.wait_for_selector(".inspector >> text=On this net’s own sums")


def test_layers_and_neurons_can_be_added_and_taken(open_page, server):
    page = opened(open_page(), server)
    page.get_by_role("button", name="One layer less").click()
    page.get_by_role("button", name="One neuron more in layer 1").click()
    page.wait_for_selector('[aria-label^="The net: 2-5-1"]')
    page.wait_for_function("location.search.includes('hidden=5')")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 390)])
def test_axe_finds_nothing(open_page, server, scheme, width):
    page = opened(open_page(width=width, scheme=scheme), server, "?neuron=0.1")
    page.wait_for_timeout(800)
    assert violations(page) == []
