"""The web app: serves the page and answers with Findings, data and training Steps. Loopback only unless told."""

from __future__ import annotations

import os
import secrets
import socket
import threading
import webbrowser
from pathlib import Path

from ..errors import UsageError

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(
    host: str = "127.0.0.1", port: int | None = None, *, browser: bool | None = None, token: str | None = None
) -> None:
    """Serve the web app until stopped (Ctrl-C).

    `port` is PORT of the environment, or 8765. The browser opens unless NO_BROWSER is set. On any host other than
    loopback a token is asked for: the given one, or a fresh one that is printed with the address.
    Raises UsageError for a port that is taken or not allowed.
    """
    import uvicorn

    from .app import make_app, warm_up

    port = port if port is not None else _port_from_environment()
    opened = listen(host, port)
    port = opened.getsockname()[1]
    token = token or (None if host in LOOPBACK else secrets.token_urlsafe(16))
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{port}/" + (f"?token={token}" if token else "")
    print(f"Neuralmine is at {address}  (Ctrl-C stops it)", flush=True)
    wanted = browser if browser is not None else not os.environ.get("NO_BROWSER")
    if wanted:
        threading.Timer(0.8, webbrowser.open, [address]).start()
    # torch takes a second or two to load: that begins now, not with the first request.
    threading.Thread(target=warm_up, name="warm up", daemon=True).start()
    config = uvicorn.Config(make_app(host=host, token=token), log_level="warning", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[opened])


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to the address. Raises UsageError saying what is wrong with it and what to try."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((host, port))
    except OverflowError:
        opened.close()
        raise UsageError(f"{port} is no port.", "Use a number from 1024 to 65535.") from None
    except OSError as error:
        opened.close()
        raise UsageError(
            f"Cannot listen on {host}, port {port}: {error.strerror or error}.",
            f"Stop the program that uses it, or choose another: PORT={port + 1} make run, neuralmine serve --port {port + 1}.",
        ) from None
    return opened


def _port_from_environment() -> int:
    given = os.environ.get("PORT") or "8765"
    if not given.isdigit():
        raise UsageError(f"PORT is {given!r}, which is no number.", "Use a number from 1024 to 65535.")
    return int(given)


def page_folder() -> Path:
    """Where the built front end lies. Raises UsageError when it was not built."""
    folder = Path(__file__).parents[1] / "web"
    if not (folder / "index.html").is_file():
        raise UsageError("The web page was not built.", "Run `pip install -e .` in a checkout, or install the wheel.")
    return folder
