"""The Learning page, used as a person would: race, scrub, look at one, change the start."""

import io

import pytest
from PIL import Image

from .conftest import soon, soon_not, violations

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser learning")]
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
    soon(lambda: {name: float(text) for name, text in losses(page).items()}, pytest.approx(wanted, rel=1e-3))
    page.locator("h1").evaluate("document.activeElement.blur()")
    page.keyboard.press("[")
    page.wait_for_selector("text=step 7 of 8")
    before = losses(page)
    page.keyboard.press("]")
    soon_not(lambda: losses(page), before)
    page.click("table >> text=Adam")
    page.wait_for_selector(".inspector >> text=images sent through")
    assert violations(page) == []
    page.keyboard.press("Escape")
    first = losses(page)
    page.get_by_label("seed").fill("5")
    page.get_by_label("seed").press("Tab")
    page.get_by_role("button", name="Race", exact=True).click()
    page.wait_for_selector("text=Random weights of seed 5")
    page.wait_for_selector("text=3 optimizers, 8 steps, one start.")
    soon_not(lambda: losses(page), first)


def test_too_few_optimizers_say_so(open_page, server):
    page = open_page(strict=False)
    page.goto(server.url(f"/learning{QUICK}"))  # whether a race still runs makes no difference
    for name in ("SGD", "Adam"):
        page.get_by_role("checkbox", name=name, exact=True).uncheck()
    page.click("button:has-text('Race')")
    page.wait_for_selector("[role=alert] >> text=at least two")


def moved(page):
    page.wait_for_selector("text=Weights moved by hand")
    page.wait_for_selector("text=3 optimizers, 8 steps, one start.")


def test_the_start_is_dragged_and_the_link_repeats_the_race(open_page, server):
    page = raced(open_page(), server)
    before = losses(page)
    box = page.locator("button.start").bounding_box()
    page.mouse.move(box["x"] + 14, box["y"] + 14)
    page.mouse.down()
    page.mouse.move(box["x"] + 90, box["y"] + 90, steps=3)
    page.mouse.up()
    moved(page)
    soon_not(lambda: losses(page), before)
    after = losses(page)
    page.wait_for_url("**start=*")
    again = open_page()
    again.goto(page.url)
    moved(again)
    soon(lambda: losses(again), after)
    page.locator("h1").evaluate("document.activeElement.blur()")
    page.keyboard.press("b")
    page.wait_for_selector("text=Random weights of seed 0")
    page.wait_for_selector("text=3 optimizers, 8 steps, one start.")
    soon(lambda: losses(page), before)


def test_the_start_is_moved_by_keyboard_and_by_number(open_page, server):
    page = raced(open_page(), server)
    page.focus("button.start")
    page.keyboard.press("Shift+ArrowRight")
    away = page.get_by_label("across").input_value()
    page.keyboard.press("Escape")
    soon_not(page.get_by_label("across").input_value, away)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    moved(page)
    first = losses(page)
    page.get_by_label("upwards").fill("1")
    page.get_by_label("upwards").press("Tab")
    page.get_by_role("button", name="Race from there").click()
    page.wait_for_selector("text=itself from a moved start")
    moved(page)
    soon_not(lambda: losses(page), first)


def test_in_3d_it_turns_zooms_and_says_the_same_exact_losses(open_page, server):
    page = raced(open_page(), server, QUICK + "&view=3d")
    view = page.locator("[aria-roledescription='surface in 3D']")
    words = view.get_attribute("aria-label")
    # Something is drawn: the picture of it has many colours.
    drawn = Image.open(io.BytesIO(view.screenshot())).convert("RGB")
    assert len(drawn.getcolors(1 << 20)) > 50
    view.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("+")
    page.wait_for_url("**turn=-38%2C34%2C1.2**")
    page.keyboard.press("Shift+ArrowUp")
    soon(lambda: "loss" in view.inner_text(), True)
    walked = view.inner_text()
    value = walked.rsplit(" ", 1)[1]
    box = view.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 0.62 * box["height"])
    soon(lambda: view.inner_text() not in ("", walked), True)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + 60, box["y"] + 0.62 * box["height"] + 20, steps=3)
    page.mouse.up()
    page.wait_for_function("!location.search.includes('turn=-38')")
    page.locator("h1").evaluate("document.activeElement.blur()")
    page.keyboard.press("v")
    flat = page.locator("[aria-roledescription='contour map']").get_attribute("aria-label")
    shared = flat[: flat.index("Arrow keys")]
    assert words.startswith(shared.rstrip())
    assert float(value) in [pytest.approx(v, rel=1e-5) for v in surface_of(page, server)]


def test_in_3d_axe_finds_nothing_and_a_drawing_that_was_lost_comes_back(open_page, server):
    page = raced(open_page(width=390, scheme="dark"), server, QUICK + "&view=3d")
    assert violations(page) == []
    page.evaluate(
        "window.lose = document.querySelector('canvas').getContext('webgl2').getExtension('WEBGL_lose_context')"
    )
    page.evaluate("lose.loseContext()")
    page.wait_for_selector("text=took its drawing back")
    page.evaluate("lose.restoreContext()")
    page.wait_for_selector("text=took its drawing back", state="detached")


def surface_of(page, server):
    """All heights, as the page saves them."""
    page.click("[aria-label^='Copy the numbers of Exact loss']")
    page.wait_for_selector("text=Numbers copied.")
    lines = page.evaluate("navigator.clipboard.readText()").splitlines()[1:]
    return [float(v) for line in lines for v in line.split(",")[1:]]


def test_without_webgl_the_map_is_shown_and_says_why(open_page, server):
    page = open_page()
    page.add_init_script("""const real = HTMLCanvasElement.prototype.getContext;
      HTMLCanvasElement.prototype.getContext = function (kind, ...more) {
        return kind === 'webgl2' ? null : real.call(this, kind, ...more); };""")
    page.goto(server.url(f"/learning{QUICK}&view=3d"))
    page.wait_for_selector("text=gives no WebGL2")
    page.wait_for_selector("[aria-roledescription='contour map']")


def test_rates_are_changed_while_it_runs(open_page, server):
    page = open_page()
    # Slow for long, so that a loaded machine has the time; then the rest at full pace.
    page.goto(server.url(f"/learning{QUICK.replace('steps=8', 'steps=60')}&pace=slow"))
    page.wait_for_selector("text=Racing: step")
    page.click("[aria-label='Double the rate of Adam']")
    page.wait_for_selector("text=Rates changed on the way (dots on the curves): Adam 0.02")
    page.locator("h1").evaluate("document.activeElement.blur()")
    page.keyboard.press("p")
    page.wait_for_selector("text=Held: step")
    soon(page.locator("button.start").count, 1)  # what stands still can be moved
    page.wait_for_url("**changes=*adam%3A0.02*")
    page.select_option("label:has-text('Pace') select", "full")
    page.click("text=Go on")
    page.wait_for_selector("text=3 optimizers, 60 steps, one start.")


def test_what_goes_wrong_is_said(open_page, server):
    page = open_page()
    page.goto(server.url("/learning?net=best&race=sgd,adam&steps=4&lr=1e30"))
    page.wait_for_selector("text=Adam fell out at step 1: the loss became nan at a rate of 1e+30; give no rate")
    soon(lambda: page.inner_text("table").count("▲ fell out"), 2)
    page.goto(server.url("/learning?race=sgd,adam&steps=4&lr=sgd=1,adam=0.01&batch=5000"))
    page.wait_for_selector("[role=alert] >> text=fewer than a batch of 5000")


def test_a_landscape_shows_the_networks_own_loss_the_line_and_the_bend(open_page, server):
    import neuralmine as nm

    page = open_page()
    page.goto(server.url("/learning/landscape"))
    page.wait_for_selector("text=Largest eigenvalues")
    data = nm.datasets.load("digits").split(test=0.25, seed=0)[0]
    network = nm.load("64-16-10")
    bend = nm.look("curvature", network, data, count=5)
    line = nm.look("loss_landscape", network, data, directions="between", other="64-16-10:untrained", dimensions=1)
    page.wait_for_selector(f"main >> text={float(bend.numbers['largest'][0]):.3g}")
    page.wait_for_selector(f"main >> text=1 the other ({float(line.numbers['loss'][0, -1]):.3g})")
    soon(page.locator("[aria-roledescription='surface in 3D']").count, 1)
    page.get_by_role("button", name="Map", exact=True).click()
    page.wait_for_url("**view=map**")
    page.focus("[aria-roledescription='contour map']")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    shown = page.locator(".inspector dd >> nth=2")
    soon(lambda: float(shown.inner_text()), pytest.approx(float(line.numbers["loss"][0, 0]), rel=1e-4))
    page.select_option("label:has-text('Plane') select", "between")
    page.wait_for_selector("text=At 1 across is the other one.")
    assert violations(page) == []


def test_a_landscape_of_nets_of_two_shapes_says_so(open_page, server):
    page = open_page(width=390, scheme="dark", strict=False)
    page.goto(server.url("/learning/landscape?net=64-10&other=64-16-10"))
    page.wait_for_selector("[role=alert] >> text=Compare networks of the same architecture")
    page.wait_for_selector("text=Largest eigenvalues")
    assert violations(page) == []
