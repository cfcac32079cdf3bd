"""Writes the documentation as HTML into docs/site: the README, the tutorial, the decisions, and a page for each lens."""

import html
import inspect
from pathlib import Path

from markdown_it import MarkdownIt

from neuralmine.lens import Lens, find, summaries

HERE = Path(__file__).parent
SITE = HERE / "site"
STYLE = (
    "body{max-width:46rem;margin:2rem auto;padding:0 1rem;font:1rem/1.55 system-ui,sans-serif;color:#2b2721;background:#faf7f1}"
    "pre{background:#f1ece2;padding:.8rem;overflow:auto}code{font-size:.92em}table{border-collapse:collapse}"
    "td,th{border-bottom:1px solid #ddd5c6;padding:.2rem .8rem .2rem 0;text-align:left;vertical-align:top}img{max-width:100%}a{color:#8a6100}"
)


def lens_page(lens: Lens) -> str:
    """One lens in markdown: what it takes, its options, and its whole docstring."""
    rows = "\n".join(
        f"| `{option.name}` | {option.type} | `{option.default!r}` | {option.help} |" for option in lens.options
    )
    doc = inspect.getdoc(lens.function) or ""
    return (
        f"# {lens.name}\n\n{lens.summary}\n\nTakes: {', '.join(lens.nouns)}.\n\n"
        f"| option | kind | default | what it does |\n|---|---|---|---|\n{rows}\n\n```\n{doc}\n```\n"
    )


def main() -> None:
    pages = {
        "index": (HERE.parent / "README.md").read_text().replace("docs/workshop.png", "workshop.png"),
        "tutorial": (HERE / "tutorial.md").read_text(),
        **{f"decision-{file.stem}": file.read_text() for file in sorted((HERE / "decisions").glob("*.md"))},
        **{f"lens-{name}": lens_page(find(name)) for name in summaries()},
    }
    SITE.mkdir(exist_ok=True)
    links = " · ".join(f'<a href="{name}.html">{html.escape(name)}</a>' for name in pages)
    render = MarkdownIt("commonmark").enable("table").render
    for name, text in pages.items():
        body = render(text).replace('href="docs/tutorial.md"', 'href="tutorial.html"')
        (SITE / f"{name}.html").write_text(
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Neuralmine: {name}</title>'
            f"<style>{STYLE}</style><nav>{links}</nav>{body}</html>"
        )
    picture = HERE / "workshop.png"
    (SITE / "workshop.png").write_bytes(picture.read_bytes())
    print(f"{len(pages)} pages in {SITE}")


if __name__ == "__main__":
    main()
