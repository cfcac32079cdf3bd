"""A finding anywhere: as text, as a picture, or as one HTML file that keeps its views alive without a server."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from pathlib import Path

from .atomic import write_file
from .errors import UnknownName, UsageError
from .types import Finding
from .wire import frame

FORMS = ("text", "svg", "png", "html")


def render(finding: Finding, form: str = "text", view: int = 0) -> str | bytes:
    """A finding as "text", its `view`-th view as "svg" or "png", or the whole of it as "html".

    Raises UnknownName for another form, UsageError for a view it does not have.

    >>> import neuralmine as nm
    >>> render(nm.look("weights", nm.load("digits"))).splitlines()[0][:40]
    'output: 10 neurons with 16 weights each,'
    """
    if form == "text":
        return finding.text()
    if form == "html":
        return page_of([finding], finding.lens)
    if form not in FORMS:
        raise UnknownName("form", form, FORMS)
    if not 0 <= view < len(finding.views):
        raise UsageError(f"This finding has {len(finding.views)} views; there is no view {view}.", "Choose another.")
    return finding.views[view].to_svg() if form == "svg" else finding.views[view].to_png()


def report(findings: Sequence[Finding], path: Path | str, title: str = "Neuralmine report") -> Path:
    """Write findings as one HTML file that opens from disk, its views interactive, its numbers inside.

    Raises StoreError when the file cannot be written, UsageError for an empty list.
    """
    if not findings:
        raise UsageError("There are no findings to report.", "Give at least one, from neuralmine.look(…).")
    return write_file(path, page_of(findings, title))


def page_of(findings: Sequence[Finding], title: str) -> str:
    """The HTML of such a file. Raises UsageError when the script that shows the views was not built."""
    folder = Path(__file__).parent / "web"
    script, style = folder / "report.js", folder / "report.css"
    if not script.is_file():
        raise UsageError(
            "The report's script was not built.", "Run `pip install -e .` in a checkout, or install the wheel."
        )
    data = [base64.b64encode(frame(finding)).decode() for finding in findings]
    words = "".join(f"<pre>{html.escape(finding.text())}</pre>" for finding in findings)
    # A script element ends at the first "</script", also inside a string: hence the escapes.
    code = script.read_text().replace("</script", "<\\/script")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{style.read_text() if style.is_file() else ''}</style></head>"
        f'<body><div id="report" data-title="{html.escape(title)}"></div><noscript>{words}</noscript>'
        f'<script type="application/json" id="findings">{json.dumps(data)}</script>'
        f"<script>{code}</script></body></html>"
    )
