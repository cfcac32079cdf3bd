"""The Recordings page, used as a person would: record the example, scrub, open a weight, see what flips."""

import json
import re

import numpy as np
import pytest
from safetensors.numpy import load_file

from .conftest import Server, soon, violations

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser recordings")]


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A server with a home of its own: nothing is recorded there yet."""
    started = Server(tmp_path_factory.mktemp("recordings"))
    yield started
    started.kill()


def recorded(page, own, query=""):
    """The page with the example on it, recorded by its button the first time."""
    page.goto(own.url(f"/learning/recordings{query}"))
    page.wait_for_selector("text=It ran to its end" if list_of(own) else "text=Nothing is recorded yet")
    if not list_of(own):
        page.click("text=Record a small example")
    page.wait_for_selector("text=It ran to its end.", timeout=120_000)
    page.wait_for_selector("h2:has-text('hidden1.sum.weight')")
    page.wait_for_function("!document.body.innerText.includes('Reading record')")
    return page


def list_of(own):
    folder = own.home / "recordings"
    return sorted(folder.iterdir()) if folder.is_dir() else []


def file_of(own, step):
    return load_file(list_of(own)[0] / "records" / f"{step:09d}.safetensors")


def test_from_nothing_to_a_weight_and_what_flips(open_page, own):
    page = recorded(open_page(), own)
    page.wait_for_selector("text=step 200 of 200")
    page.locator("h1").evaluate("document.activeElement.blur()")
    page.keyboard.press("{")
    page.wait_for_selector("text=step 0 of 200")
    for _ in range(20):
        page.keyboard.press("]")
    page.wait_for_selector("text=step 20 of 200")
    page.wait_for_selector("text=Since step 19")
    # The cell that is opened is that of the file.
    grid = page.get_by_role("application", name=re.compile("weights of hidden1.sum.weight at step 20"))
    box = grid.bounding_box()
    grid.click(position={"x": (30 + 0.5) * box["width"] / 64, "y": (3 + 0.5) * box["height"] / 16})
    inspector = page.locator(".inspector")
    inspector.locator("text=hidden1.sum.weight[3, 30]").wait_for()
    files = [file_of(own, step) for step in (19, 20)]
    weights = [file["weights/hidden1.sum.weight"][3, 30] for file in files]
    shown = inspector.locator("dt:has-text('at step 20') + dd").get_attribute("title").replace("−", "-")
    assert float(shown) == weights[1]
    change = inspector.locator("dt:has-text('measured change') + dd").inner_text().replace("−", "-")
    assert float(change) == pytest.approx(weights[1] - weights[0], rel=1e-3)
    assert float(change) == pytest.approx(-0.2 * files[1]["gradients/hidden1.sum.weight"][3, 30], rel=1e-3)
    inspector.locator("text=equal to 1e-7").wait_for()
    # The inputs that flip are those whose largest output moved.
    said = [file["output/"].argmax(1) for file in files]
    flips = np.flatnonzero(said[0] != said[1])
    flipped = page.locator("section[aria-label='Inputs that flip'] .flip")

    def seen():
        texts = flipped.all_inner_texts()
        return {int(re.search(r"input (\d+)", text)[1]): re.search(r"(\d) → (\d)", text).groups() for text in texts}

    soon(seen, {int(i): (str(said[0][i]), str(said[1][i])) for i in flips})
    cards = flipped.all_inner_texts()
    assert len(flips) > 3
    labels = load_file(list_of(own)[0] / "input.safetensors")["labels"]
    right = [i for i in flips if said[1][i] == labels[i]]
    assert sum("right now" in card for card in cards) == len(right)
    # The link opens exactly this.
    page.wait_for_function("/step=20/.test(location.search) && /cell=/.test(location.search)")
    again = open_page()
    again.goto(page.url)
    again.locator(".inspector >> text=hidden1.sum.weight[3, 30]").wait_for()
    again.wait_for_selector("footer >> text=step 20 of 200")


def test_gradients_activations_and_changes_of_one_step(open_page, own):
    page = recorded(open_page(), own)
    page.locator("h1").evaluate("document.activeElement.blur()")
    page.keyboard.press("[")
    page.wait_for_selector("h2:has-text('hidden1.sum.weight') >> text=at step 199")
    scale = page.locator("section[aria-label='Numbers of the tensor'] .legend").inner_text()
    page.keyboard.press("{")
    page.wait_for_selector("h2:has-text('hidden1.sum.weight') >> text=at step 0")
    page.get_by_role("application", name=re.compile("weights of hidden1.sum.weight at step 0")).wait_for()
    soon(page.locator("section[aria-label='Numbers of the tensor'] .legend").inner_text, scale)
    page.keyboard.press("]")
    page.keyboard.press("c")
    page.get_by_role("application", name=re.compile("change of hidden1.sum.weight since step 0 at step 1")).wait_for()
    page.locator("tr:has-text('output.sum.bias') button.cell").nth(1).click()
    page.get_by_role("application", name=re.compile("gradients of output.sum.bias at step 1")).wait_for()
    norm = page.locator("dt:has-text('norm') + dd")
    wanted = np.linalg.norm(file_of(own, 1)["gradients/output.sum.bias"])
    soon(lambda: float(norm.get_attribute("title")), pytest.approx(wanted))
    page.keyboard.press("[")
    page.wait_for_selector("text=No gradients at step 0")
    page.keyboard.press("]")
    page.locator("th button:has-text('hidden1.activation')").click()
    page.get_by_label("input of the traced batch").fill("7")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('[aria-label=\"Input 7\"]') !== null")
    wanted = np.linalg.norm(file_of(own, 1)["trace/hidden1.activation"][7])
    page.wait_for_function(
        f"Math.abs(Number(document.querySelector('.side dl').innerText.match(/norm\\s+([\\d.]+)/)[1]) - {wanted}) < 1e-2"
    )
    page.locator("main").focus()
    page.keyboard.press(" ")
    page.wait_for_selector("footer >> text=Pause")


def test_a_diverged_recording_with_a_broken_record_and_a_huge_tensor_opens(open_page, own, tmp_path):
    import math

    import torch

    import neuralmine as nm

    model = torch.nn.Linear(3000, 200)
    folder = tmp_path / "mine"
    with nm.watch(model, every=1, folder=folder) as run:
        for index in range(1, 5):
            if index == 4:
                with torch.no_grad():
                    model.weight[0, 0] = math.nan
            run.step(loss=math.inf if index == 3 else 1.0)
    (folder / "records" / "000000002.safetensors").write_bytes(b"torn")
    page = open_page(strict=False)
    page.goto(own.url("/learning/recordings"))
    page.get_by_placeholder("/path/of/a/recording").fill(str(folder))
    page.click("button:text-is('Open')")
    page.wait_for_selector("text=The record of step 2 is broken and left out")
    page.wait_for_selector("text=1 values are not finite, the first at step 3")
    page.wait_for_selector("tr:has-text('weight') >> text=1 not finite")
    page.wait_for_selector("text=rows 0 to 63 of 200, columns 0 to 63 of 3,000")
    page.get_by_label("Columns to the right").click()
    page.wait_for_selector("text=columns 64 to 127 of 3,000")
    page.wait_for_selector("text=No batch was traced")
    page.locator("h1").evaluate("document.activeElement.blur()")
    for step in (3, 2):
        page.keyboard.press("[")
        page.wait_for_selector(f"text=step {step} of 4")
    page.wait_for_selector("[role=alert] >> text=The record of step 2 is broken")
    page.get_by_placeholder("/path/of/a/recording").fill(str(tmp_path / "nowhere"))
    page.click("button:text-is('Open')")
    page.wait_for_selector("[role=alert] >> text=holds no recording")
    assert json.loads((folder / "run.json").read_text())["model"] == "Linear"


def test_a_workshop_run_is_scrubbed_too(open_page, server):
    import urllib.request

    body = json.dumps({"hidden": [4], "settings": {"epochs": 3}, "playing": True}).encode()
    request = urllib.request.Request(server.url("/api/runs"), body, {"Content-Type": "application/json"})
    name = json.loads(urllib.request.urlopen(request).read())["run"]
    page = open_page()
    page.goto(server.url(f"/learning/recordings?recording=run:{name}"))
    page.wait_for_selector("text=It ran to its end.", timeout=60_000)
    page.wait_for_selector("text=Open it in the Workshop")
    page.wait_for_selector("section[aria-label='Inputs that flip'] .flip")
    path = server.home / "runs" / name / "checkpoints"
    last = sorted(path.iterdir())[-1]
    norm = page.locator("dt:has-text('norm') + dd")
    wanted = np.linalg.norm(load_file(last)["weights/hidden1.sum.weight"])
    soon(lambda: float(norm.get_attribute("title")), pytest.approx(wanted))


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 390)])
def test_axe_finds_nothing(open_page, own, scheme, width):
    page = recorded(open_page(width=width, scheme=scheme), own)
    page.get_by_role("application", name=re.compile("weights of hidden1")).click(position={"x": 20, "y": 20})
    page.wait_for_selector("text=How this number was made")
    page.wait_for_timeout(300)
    assert violations(page) == []
