"""The Workshop, used as a person would: draw, open, train, rewind, find whose fault it is, come back by URL."""

import json
import re
import urllib.request
from urllib.parse import parse_qs

import numpy as np
import pytest

import neuralmine as nm

from .conftest import Server, soon, soon_not, violations

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser workshop")]


def ready(page, server, query=""):
    page.goto(server.url(f"/workshop{query}"))
    page.wait_for_selector(".says")
    return page


def figures(page, selector=".outputs .bar .number"):
    return [float(text.replace("−", "-")) for text in page.locator(selector).all_inner_texts()]


def query_of(page):
    return {key: value[0] for key, value in parse_qs(page.evaluate("location.search.slice(1)")).items()}


def run_of(page):
    """The run that the page has begun, once its address says so."""
    page.wait_for_url("**net=run*")
    return query_of(page)["net"].removeprefix("run:")


def pixels_of(page):
    return [int(c, 17) / 16 for c in query_of(page).get("px", "")]


def begin_run(page, **fields):
    for label, value in fields.items():
        page.get_by_label(label, exact=True).fill(str(value))
        page.keyboard.press("Tab")
    page.click("text=Begin from random weights")
    page.wait_for_selector(".scrubber")


def recorded(page):
    return int(re.search(r"update ([\d,]+)", page.inner_text(".scrubber output")).group(1).replace(",", ""))


def test_what_is_shown_is_what_the_lens_measures(open_page, server):
    page = ready(open_page(), server, "?net=64-16-10&img=12")
    test = nm.datasets.load("digits").split()[1]
    wanted = nm.look("activations", nm.load("64-16-10"), test.images[12])
    soon(lambda: figures(page), pytest.approx(wanted.numbers["scores"], rel=6e-3))
    shown = [float(t) for t in page.locator(".tile .number").all_inner_texts()]
    assert shown == pytest.approx(wanted.numbers["hidden1"], rel=6e-2, abs=1e-9)


def test_drawing_by_mouse_and_by_key_changes_the_answer(open_page, server):
    page = ready(open_page(), server)
    before = figures(page)
    page.click("text=Clear")
    surface = page.locator(".input [role=application]")
    box = surface.bounding_box()
    x, y = box["x"] + 3.5 * box["width"] / 8, box["y"] + box["height"] / 16
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x, y + 7 * box["height"] / 8, steps=20)
    page.mouse.up()
    surface.focus()
    for key in ("ArrowRight", "Enter"):
        page.keyboard.press(key)
    soon(lambda: sum(pixels_of(page)) >= 8, True)

    def measured():
        return nm.look("activations", nm.load("64-16-10"), np.array(pixels_of(page))).numbers["scores"]

    soon(lambda: figures(page) == pytest.approx(measured(), rel=6e-3), True)
    assert figures(page) != before
    drawn = pixels_of(page)
    page.keyboard.press("Control+z")
    soon_not(lambda: pixels_of(page), drawn)


def test_a_neuron_opens_down_to_the_pixels_and_its_terms_add_up(open_page, server):
    page = ready(open_page(), server, "?net=64-16-10&img=3")
    page.click(".outputs .bar >> nth=6")
    page.wait_for_selector(".terms .sum")
    page.click("text=/and \\d+ smaller ones/")
    products = [float(t.replace("−", "-")) for t in page.locator(".terms tbody tr td:nth-child(4)").all_inner_texts()]
    rest = [float(t.replace("−", "-")) for t in page.locator(".terms tr td[colspan] + td").all_inner_texts()]
    bias, total, activation = rest
    assert sum(products) + bias == pytest.approx(total, abs=0.05)
    assert activation == pytest.approx(1 / (1 + np.exp(-total)), abs=2e-3)
    page.click(".terms [aria-label^='Open hidden1'] >> nth=0")
    page.wait_for_selector("h2:has-text('hidden1, neuron')")
    page.click(".terms [aria-label^='Open pixel'] >> nth=0")
    page.wait_for_selector("h2:has-text('pixel')")
    assert "of the whole set" in page.inner_text(".inspector")


def test_training_live_from_random_weights_rewinding_and_going_on(open_page, server):
    page = ready(open_page(), server)
    begin_run(page, **{"Epochs": 12})
    page.wait_for_function("document.querySelector('.scrubber output').textContent.includes('loss')")
    page.click(".scrubber >> text=Play")
    page.wait_for_selector("text=All epochs are done.", timeout=60_000)
    page.wait_for_function("parseFloat(document.querySelector('.figures div:nth-child(2) dd').innerText) > 85")
    end = recorded(page)
    for _ in range(5):
        page.keyboard.press("[")
    soon_not(lambda: recorded(page), end)
    earlier = recorded(page)
    assert earlier < end
    run = run_of(page)
    from neuralmine.stores import runs

    path = server.home / "runs" / run
    image = nm.datasets.load("digits").split()[1].images[0]
    wanted = nm.look("activations", runs.load_network(path, earlier), image).numbers["scores"]
    soon(lambda: figures(page), pytest.approx(wanted, rel=6e-3))
    page.click(".scrubber >> text=One step")
    soon(lambda: recorded(page), earlier + 1)
    page.select_option("label:has-text('Optimizer') select", "one_weight_at_a_time")
    page.click(".scrubber >> text=One step")
    page.wait_for_selector(".hop")
    assert "weight" in page.inner_text(".hop h3")
    page.keyboard.press("b")
    page.wait_for_selector("text=Before training")
    page.wait_for_url("**before=1*")


def test_the_url_brings_back_the_whole_state(open_page, server):
    page = ready(open_page(), server, "?net=64-16-10&img=7&tab=fault")
    page.click(".tile >> nth=4")
    page.click("text=Switch this neuron off")
    page.wait_for_selector("text=without your changes")
    page.click(".stops >> text=Loss")
    off = nm.edited(nm.load("64-16-10"), off={"hidden1": [4]})
    measured = float(nm.look("confusion", off, nm.datasets.load("digits").split()[1]).numbers["accuracy"])
    page.wait_for_selector(f".page > p.row button:has-text('{100 * measured:.1f} %')")
    page.wait_for_url("**off=hidden1*")
    says, accuracy = page.inner_text(".says"), page.inner_text(".page > p.row button")
    other = open_page()
    other.goto(page.url)
    other.wait_for_selector("text=Switch it on again")
    other.wait_for_selector("text=without your changes")
    soon(lambda: other.inner_text(".says"), says)
    soon(lambda: other.inner_text(".page > p.row button"), accuracy)
    assert other.locator("[role=tab][aria-selected=true]").inner_text() == "Whose fault?"


def test_whose_fault_has_five_stops_with_the_lenss_numbers(open_page, server):
    page = ready(open_page(), server, "?net=64-16-10&img=3&tab=fault")
    test = nm.datasets.load("digits").split()[1]
    wanted = nm.look("backprop", nm.load("64-16-10"), test.images[3], target=test.classes[test.labels[3]], lr=0.5)
    page.click(".stops >> text=Loss")
    soon(lambda: float(page.inner_text(".fault strong.number")), pytest.approx(float(wanted.numbers["loss"]), rel=1e-3))
    page.click(".stops >> text=Output error")
    soon(
        lambda: figures(page, ".fault tbody td:nth-child(4)"),
        pytest.approx(wanted.numbers["output.delta"], rel=1e-3, abs=1e-12),
    )
    page.click(".stops >> text=Error sent back")
    page.wait_for_selector(".fault caption:has-text('hidden1')")
    page.click(".stops >> text=Update")
    page.wait_for_selector("text=Each weight’s share of the error")
    soon(page.locator(".fault .evidence.holds").count, 2)


def test_the_threshold_matters_and_two_outputs_say_the_same(open_page, server):
    page = ready(open_page(), server, "?net=64-1&tab=line")
    page.wait_for_selector("text=Open the essay’s 1-or-0 net", state="hidden")
    share = page.locator(".slider strong >> nth=1")
    soon(share.inner_text, "83.9 %")
    page.click("text=/Best here/")
    soon(lambda: float(share.inner_text().split()[0]) > 84, True)
    best = share.inner_text()
    page.click("text=Same with two outputs")
    page.wait_for_selector("text=Same with one output")
    soon(share.inner_text, best)


def test_errors_say_what_and_what_to_do(open_page, server, tmp_path):
    page = ready(open_page(strict=False), server)
    page.get_by_label("or a path of your own").fill(str(tmp_path / "none.csv"))
    page.keyboard.press("Tab")
    page.click("text=Begin from random weights")
    page.wait_for_selector("[role=alert] >> text=There is no file")
    page.goto(server.url("/workshop?net=64-16-11"))
    page.wait_for_selector("[role=alert] >> text=Did you mean")


def test_a_run_cut_off_by_a_kill_can_be_resumed_or_discarded(open_page, tmp_path):
    own = Server(tmp_path / "home")
    try:
        page = ready(open_page(strict=False), own)
        begin_run(page, **{"Epochs": 4000})
        page.click(".scrubber >> text=Play")
        page.wait_for_function("document.querySelectorAll('.curves').length")
        address = "run:" + run_of(page)
        own.kill()
        page.keyboard.press("n")
        page.wait_for_selector("text=The server does not answer.")
        own.start()
        page.goto(own.url(f"/workshop?net={address}"))
        page.wait_for_selector(".scrubber")
        before = recorded(page)
        page.click(".scrubber >> text=One step")
        soon(lambda: recorded(page), before + 1)
        page.on("dialog", lambda dialog: dialog.accept())
        page.click("summary:has-text('Your runs')")
        page.click("text=Discard")
        page.wait_for_selector("text=Train your own")
        assert not list((own.home / "runs").glob("*/run.json"))
    finally:
        own.kill()


def test_a_seal_is_opened_once_after_a_question(open_page, server):
    page = ready(open_page(), server)
    page.get_by_label("keep 10 % sealed").check()
    begin_run(page, Epochs=1)
    button = page.get_by_role("button", name="Open the seal")
    page.once("dialog", lambda dialog: dialog.dismiss())
    button.click()
    assert button.count() == 1
    asked = []
    page.once("dialog", lambda dialog: (asked.append(dialog.message), dialog.accept()))
    button.click()
    page.wait_for_selector("text=of 180 sealed images right")
    assert "cannot be undone" in asked[0]
    soon(button.count, 0)
    with urllib.request.urlopen(server.url(f"/api/runs/{run_of(page)}")) as answer:
        seal = json.load(answer)["seal"]
    assert f"{100 * seal['accuracy']:.1f}" in page.inner_text(".figures")
    assert violations(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_axe_finds_nothing_on_any_panel(open_page, server, scheme, width):
    page = ready(open_page(width=width, scheme=scheme), server, "?net=64-16-10&img=3")
    for tab in ("Train", "Whose fault?", "Mistakes", "Weights", "Damage", "Threshold"):
        page.click(f"[role=tab]:has-text('{tab}')")
        page.wait_for_timeout(600)
        assert violations(page) == [], tab
    page.locator(".tile").first.click()
    page.wait_for_selector(".terms .sum")
    assert violations(page) == [], "Inspector"


def test_themes_and_keys(open_page, server):
    page = ready(open_page(), server)
    page.click("text=Blue/orange")
    page.select_option("select:has(option[value=dark])", "dark")
    page.wait_for_selector("[data-signed=blue-orange][data-theme=dark]")
    page.reload()
    page.wait_for_selector(".says")
    assert page.evaluate("document.documentElement.dataset.signed") == "blue-orange"
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.keyboard.press("?")
    page.wait_for_selector("dialog[open]")
    assert "undo" in page.inner_text("dialog")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog[open]", state="hidden")
    page.keyboard.press("n")
    page.wait_for_selector("text=test image 1")
