"""The Dream page, used as a person would: drop, watch layers arrive, stop, reload, compare, save and open the GIF."""

import io
import json
import urllib.request

import numpy as np
import pytest
from PIL import Image

from .conftest import soon, violations

pytest.importorskip("skimage")
pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser dream")]
QUICK = "?octaves=1&steps=2&jitter=4"


@pytest.fixture(scope="module")
def small():
    """A small photo, so that a ladder takes seconds."""
    rng = np.random.default_rng(5)
    rows, columns = np.mgrid[:96, :128]
    waves = 0.5 + 0.3 * np.sin(rows / 6)[..., None] * np.cos(columns / 9)[..., None]
    pixels = np.clip(waves + 0.1 * rng.standard_normal((96, 128, 3)), 0, 1)
    buffer = io.BytesIO()
    Image.fromarray((255 * pixels).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def kept(server, data):
    request = urllib.request.Request(server.url("/api/pictures"), data=data, method="POST")
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read())["id"]


def asked(server, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.url(path), data=data, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


def test_a_dropped_photo_becomes_a_ladder_and_a_gif(open_page, server, small, tmp_path):
    page = open_page()
    page.goto(server.url(f"/dream{QUICK}"))
    page.wait_for_selector("text=Dream every layer")
    page.evaluate(
        """bytes => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], 'waves.png', {type: 'image/png'}));
            document.querySelector('main .page').dispatchEvent(new DragEvent('drop', {dataTransfer: transfer, bubbles: true}));
        }""",
        list(small),
    )
    page.wait_for_function("/photo=[0-9a-f]{20}/.test(location.search)")
    page.click("text=Dream every layer")
    page.wait_for_selector(".ladder img")
    page.wait_for_selector("text=12 layers dreamt.", timeout=120_000)
    soon(page.locator(".ladder li").count, 13)
    assert violations(page) == []
    page.wait_for_function("location.search.includes('dream=')")
    page.reload()  # the address opens the same dream
    page.wait_for_selector("text=12 layers dreamt.")
    page.click(".ladder button >> nth=7")
    page.wait_for_selector(".compare img >> nth=1")
    page.wait_for_selector(".inspector >> text=features.8")
    with page.expect_download() as download:
        page.click("a:has-text('GIF')")
    download.value.save_as(tmp_path / "dreams.gif")
    gif = Image.open(tmp_path / "dreams.gif")
    assert gif.n_frames == 13
    name = page.evaluate("new URLSearchParams(location.search).get('dream')")
    last = np.asarray(Image.open(io.BytesIO(asked(server, f"/api/dreams/{name}/layers/12"))))
    assert np.array_equal(last, np.asarray(Image.open(io.BytesIO(small))))  # the photo, to the byte


def test_a_dream_is_stopped_goes_on_and_survives_a_reload(open_page, server, small):
    page = open_page()
    page.goto(server.url(f"/dream?octaves=4&steps=30&photo={kept(server, small)}"))
    page.click("text=Dream every layer")
    page.wait_for_selector(".ladder progress", timeout=60_000)
    page.wait_for_function("location.search.includes('dream=')")
    page.reload()
    page.click("button:has-text('Stop')")
    page.wait_for_selector("text=Stopped; the finished layers are kept.")
    page.click("button:has-text('Go on')")
    page.wait_for_selector(".ladder progress", timeout=60_000)
    page.click("button:has-text('Stop')")
    page.wait_for_selector("text=Stopped; the finished layers are kept.")
    page.click("summary:has-text('All dreams')")
    before = page.locator(".all li").count()
    page.click(".all li >> nth=0 >> text=delete")
    page.wait_for_function(f"document.querySelectorAll('.all li').length === {before - 1}")


def test_the_same_link_gives_the_same_picture(server, small):
    body = {"photo": kept(server, small), "layers": "features.4", "settings": {"octaves": 2, "steps": 2, "seed": 3}}
    pictures = []
    for _ in range(2):
        name = json.loads(asked(server, "/api/dreams", body))["id"]
        for line in asked(server, f"/api/dreams/{name}/events").decode().splitlines():
            last = json.loads(line[6:]) if line.startswith("data: ") else {}
            if last.get("status") == "done":
                break
        pictures.append(asked(server, f"/api/dreams/{name}/layers/0"))
    first, second = (np.asarray(Image.open(io.BytesIO(one))) for one in pictures)
    assert np.array_equal(first, second)


def test_what_cannot_be_dreamt_says_so(open_page, server):
    page = open_page(strict=False)
    page.goto(server.url(f"/dream{QUICK}"))
    page.get_by_placeholder("espresso").fill("expresso")
    page.click("text=Dream it")
    page.wait_for_selector("[role=alert] >> text=espresso")


@pytest.mark.parametrize(("scheme", "width"), [("dark", 1440), ("light", 390)])
def test_axe_finds_nothing_before_the_first_dream(open_page, server, scheme, width):
    page = open_page(width=width, scheme=scheme)
    page.goto(server.url("/dream?net=squeezenet"))  # whoever comes by a link with settings begins the dream themselves
    page.get_by_alt_text("As it is before any layer has dreamt").wait_for()
    page.wait_for_timeout(500)
    assert violations(page) == []
