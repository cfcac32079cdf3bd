"""The Microscope, used as a person would: drop a photo, wipe it, open a map, ask where the network looked."""

import io

import numpy as np
import pytest
from PIL import Image

import neuralmine as nm
from neuralmine.datasets import photo

from .conftest import soon, soon_not, violations

pytest.importorskip("skimage")
pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser microscope")]


@pytest.fixture(scope="module")
def squeezenet():
    return nm.load("squeezenet")


def ready(page, server, query=""):
    page.goto(server.url(f"/microscope{query}"))
    page.wait_for_selector(".stack .map, .ways, .two, .views", timeout=60_000)
    page.wait_for_selector("text=Click one to ask where it is seen")
    return page


def answers(page):
    rows = page.locator("[role=group][aria-label='What the network says'] .bar").all_inner_texts()
    return {name: float(score) for name, score in (row.split("\n")[:2] for row in rows)}


def drop(page, data, name, kind):
    """Drop a file on the photo, as the mouse would."""
    page.evaluate(
        """([bytes, name, type]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], name, {type}));
            document.querySelector('.drop').dispatchEvent(new DragEvent('drop', {dataTransfer: transfer, bubbles: true}));
        }""",
        [list(data), name, kind],
    )


def test_the_answer_is_the_networks_own(open_page, server, squeezenet):
    page = ready(open_page(), server)
    said = nm.look("prediction", squeezenet, photo("chelsea"))
    soon(lambda: list(answers(page)), said.provenance["labels"])
    soon(lambda: list(answers(page).values()), pytest.approx(list(said.numbers["scores"]), rel=6e-3))
    soon(lambda: page.locator(".stack > li").count() >= 13, True)


def test_a_dropped_photo_is_seen_and_what_is_none_is_refused(open_page, server, squeezenet):
    page = ready(open_page(strict=False), server)
    buffer = io.BytesIO()
    Image.fromarray(photo("coffee")).save(buffer, "PNG")
    drop(page, buffer.getvalue(), "cup.png", "image/png")
    page.wait_for_selector(".bar.best:has-text('espresso')")
    wanted = nm.look("prediction", squeezenet, photo("coffee")).numbers["scores"][0]
    soon(lambda: answers(page).get("espresso"), pytest.approx(wanted, rel=6e-3))
    page.wait_for_function("/photo=[0-9a-f]{20}/.test(location.search)")
    address = page.evaluate("location.href")
    drop(page, b"%PDF-1.7 not a picture", "cat.jpg", "image/jpeg")
    page.wait_for_selector("[role=alert] >> text=PDF")
    page.goto(address)  # the link still opens the picture that was dropped
    page.wait_for_selector(".bar.best:has-text('espresso')")


def test_wiping_a_part_out_moves_the_score_and_undo_takes_it_back(open_page, server):
    page = ready(open_page(), server)
    before = answers(page)
    page.click("button:has-text('Wipe out')")
    box = page.locator(".canvas canvas").bounding_box()
    page.mouse.move(box["x"] + 80, box["y"] + 90)
    page.mouse.down()
    page.mouse.move(box["x"] + 170, box["y"] + 130, steps=6)
    page.mouse.up()
    page.wait_for_function("location.search.includes('wiped')")
    soon_not(lambda: answers(page), before)
    page.click("button:has-text('Photo as it was')")
    page.wait_for_function("!location.search.includes('wiped')")
    soon(lambda: answers(page), before)


def test_a_map_opens_down_to_window_times_kernel(open_page, server, squeezenet):
    page = ready(open_page(), server, "?stage=5&open=features.6.expand3x3:72:5:7")
    page.wait_for_selector(".sum .total")
    found = nm.look("convolution", squeezenet, photo("chelsea"), layer="features.6.expand3x3", unit=72, row=5, column=7)
    shown = page.locator(".sum .total .number")
    wanted = pytest.approx(float(found.numbers["sum"]), rel=1e-4)
    soon(lambda: float(shown.inner_text().replace("−", "-")), wanted)
    soon(lambda: found.summary.split(":")[0] in page.inner_text(".inspector"), True)
    field = nm.look("deconvnet", squeezenet, photo("chelsea"), layer="features.6.expand3x3", unit=72, row=5, column=7)
    top, left, bottom, right = field.numbers["box"]
    page.wait_for_selector(f"text=rows {max(0, top)} to {bottom - 1}, columns {max(0, left)} to {right - 1}")


def test_the_sliders_keep_the_layers_alive(open_page, server):
    page = ready(open_page(), server)
    before = page.locator(".stack .map").first.get_attribute("aria-label")
    page.get_by_role("slider", name="Blur").fill("0.5")
    page.wait_for_function(
        f"document.querySelector('.stack .map').getAttribute('aria-label') !== {before!r}", timeout=20_000
    )


def test_where_it_looked_comes_with_evidence(open_page, server, squeezenet):
    page = ready(open_page(), server, "?tab=where")
    page.wait_for_function("document.querySelectorAll('.ways .evidence').length >= 21", timeout=120_000)
    soon(page.locator(".ways section").count, 7)
    finding = nm.look("grad_cam", squeezenet, photo("chelsea"))
    word = "holds" if finding.checks[0].passed else "fails"
    first = page.locator(".ways section >> nth=0 >> .evidence >> nth=0")
    soon(lambda: word in first.inner_text(), True)
    assert violations(page) == []
    field = page.get_by_label("Class asked about")
    field.fill("expresso")
    field.press("Enter")
    page.wait_for_selector("text=There is no class “expresso”")
    field.fill("espresso")
    field.press("Enter")
    page.wait_for_function("new URLSearchParams(location.search).get('target') === 'espresso'")


def test_the_saved_file_opens_without_a_server(open_page, server, tmp_path):
    page = ready(open_page(), server)
    with page.expect_download(timeout=120_000) as download:
        page.click("text=Save as one file")
    download.value.save_as(tmp_path / "photo.html")
    offline = open_page()
    offline.context.set_offline(True)
    offline.goto((tmp_path / "photo.html").as_uri())
    offline.wait_for_selector("h2:has-text('grad_cam')")
    soon(lambda: offline.locator("canvas").count() > 5, True)


def test_copied_python_gives_what_the_page_shows(open_page, server, squeezenet):
    page = ready(open_page(), server, "?open=features.0:3:20:30")
    page.wait_for_selector(".sum .total")
    page.click("text=Copy as Python")
    code = page.evaluate("navigator.clipboard.readText()")
    space: dict = {}
    exec(code, space)
    shown = float(page.inner_text(".sum .total .number").replace("−", "-"))
    assert shown == pytest.approx(float(space["finding"].numbers["sum"]), rel=1e-4)


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 390)])
def test_axe_finds_nothing_on_any_panel(open_page, server, scheme, width):
    page = ready(open_page(width=width, scheme=scheme), server, "?open=features.0:3:20:30")
    for tab in ("Layers", "Damage", "Side by side", "First filters"):
        page.click(f"[role=tab]:has-text('{tab}')")
        page.wait_for_timeout(2500)
        assert violations(page) == [], tab
    assert np.isfinite(list(answers(page).values())).all()
