"""A real server and a real Chromium for the tests of the page: one of each in every worker, a file in one worker."""

import atexit
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest

AXE = Path(__file__).parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"
ARGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
        "--disable-sync", "--no-first-run"]  # fmt: skip
# What the servers of this worker complain of: shown beside what the page complained of.
LOG = Path(tempfile.mkdtemp(prefix="neuralmine-servers-")) / "log.txt"
atexit.register(shutil.rmtree, LOG.parent, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """`neuralmine serve` on a port and a home folder of its own."""

    def __init__(self, home: Path) -> None:
        self.home, self.port = home, free_port()
        self.process = None
        self.start()

    def start(self) -> None:
        environment = {**os.environ, "NEURALMINE_HOME": str(self.home), "NO_BROWSER": "1", "PORT": str(self.port)}
        command = [sys.executable, "-c", "from neuralmine.cli import main; main()", "serve"]
        with LOG.open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=log)
        for _ in range(300):
            try:
                urllib.request.urlopen(self.url("/api/catalogue"), timeout=5).close()
                return
            except OSError:
                time.sleep(0.1)
        raise AssertionError("the server did not start")

    def url(self, path: str = "/workshop") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    started = Server(tmp_path_factory.mktemp("home"))
    yield started
    started.kill()


@pytest.fixture(scope="session")
def chromium():
    from playwright.sync_api import sync_playwright

    found = os.environ.get("CHROME") or next(
        (p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None
    )
    if found is None:
        pytest.fail("The browser tests need Chrome or Chromium: run them with `make test`, or set CHROME.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=ARGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium):
    """A function that opens pages; when the test ends, none of them may have logged an error."""
    pages, complaints = [], []

    def make(width=1440, height=900, scheme="light", tour=False, strict=True):
        context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        if not tour:
            context.add_init_script("localStorage.setItem('tour-workshop', 'left')")
        page = context.new_page()
        page.set_default_timeout(20_000)
        if strict:
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        pages.append(context)
        return page

    yield make
    for context in pages:
        context.close()
    assert complaints == [], LOG.read_text()[-6000:]


def soon(read, wanted) -> None:
    """What `read` reads off the page becomes `wanted`, however slow the machine is."""
    _settle(read, lambda value: value == wanted)
    assert read() == wanted


def soon_not(read, before) -> None:
    """What `read` reads off the page becomes something else than `before`."""
    _settle(read, lambda value: value != before)
    assert read() != before


def _settle(read, good, seconds=20.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end and not good(read()):
        time.sleep(0.05)


def violations(page) -> list[str]:
    """What axe-core finds wrong with the page as it is."""
    page.add_script_tag(path=str(AXE))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    return [f"{v['id']}: {v['help']} ({v['nodes'][0]['target']}: {v['nodes'][0]['html'][:160]})" for v in found]
