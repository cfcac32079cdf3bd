"""What the documentation says is true: its code runs, its figures are the presets', its commands exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def blocks(file: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / file).read_text(), re.S)


@pytest.mark.parametrize("file", ["README.md", "docs/tutorial.md"])
def test_the_code_in_the_documentation_runs(file, capsys):
    names: dict = {}
    for code in blocks(file):
        exec(compile(code, file, "exec"), names)
    assert blocks(file)


def test_the_readme_example_is_short():
    (code,) = blocks("README.md")
    assert len([line for line in code.splitlines() if line.strip()]) <= 12


def test_the_commands_in_the_readme_exist():
    import typer

    from neuralmine.cli.commands import app

    commands = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    named = set(re.findall(r"^\s+neuralmine (\w+)", (ROOT / "README.md").read_text(), re.M))
    assert named
    assert named <= commands


def test_every_lens_has_a_page():
    from neuralmine.lens import find, summaries

    source = (ROOT / "docs" / "build.py").read_text()
    scope: dict = {"__file__": str(ROOT / "docs" / "build.py"), "__name__": "docs"}
    exec(compile(source, "build.py", "exec"), scope)
    for name in summaries():
        page = scope["lens_page"](find(name))
        assert name in page
        for option in find(name).options:
            assert f"`{option.name}`" in page
            assert option.help, f"{name}: the option {option.name} is not explained"
