"""One function a command; each only reads what the engine gives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ..errors import DataError, StoreError, UsageError
from ..lens import Lens, find, summaries
from ..lens import look as look_through
from .waiting import waiting

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=
    "Watch a neural network turn data into meaning, layer by layer. Every figure is measured."
)  # fmt: skip
out = Console()
AsJson = Annotated[bool, typer.Option("--json", help="Print numbers and checks as JSON.")]


@app.command()
def networks(as_json: AsJson = False) -> None:
    """The networks that come along."""
    from ..networks import names

    _listing("network", names(), as_json)


@app.command()
def lenses(as_json: AsJson = False) -> None:
    """The lenses there are, with one line each."""
    _listing("lens", dict(summaries()), as_json)


@app.command()
def data(as_json: AsJson = False) -> None:
    """The data sets that have a name; folders and CSV files are given by path."""
    from ..datasets import names

    _listing("data set", names(), as_json)


@app.command()
def layers(network: str, as_json: AsJson = False) -> None:
    """A network's layers in execution order, and what cannot be looked into."""
    from ..networks import load

    loaded = load(network)
    if as_json:
        rows = [{key: getattr(layer, key) for key in layer.__dataclass_fields__} for layer in loaded.layers]
        print(json.dumps({"layers": rows, "untraced": dict(loaded.untraced)}))
        return
    table = Table("layer", "kind", "dims", "shape", "parameters", box=None)
    for layer in loaded.layers:
        table.add_row(layer.name, layer.kind, layer.dims, " × ".join(map(str, layer.shape)), str(layer.parameters))
    out.print(table)
    for name, why in loaded.untraced.items():
        out.print(f"{name}: not traced, {why}")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def look(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="LENS")] = "",
    network: Annotated[
        str, typer.Option(help="A catalogue name, a file, a run's folder, or module:function.")
    ] = "digits",
    given: Annotated[
        str,
        typer.Option(
            "--input", help="A text; or an image: DATA:INDEX, a picture's path, or a bundled photo's name (chelsea)."
        ),
    ] = "",
    dataset: Annotated[
        str, typer.Option("--data", help="A data set's name or path; for photo networks a folder.")
    ] = "",
    save: Annotated[Path | None, typer.Option("--out", help="Save the finding in this folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Look through a lens. `neuralmine look LENS --help` lists the lens's own options."""
    if not name or name.startswith("-"):
        raise UsageError("Which lens?", f"Write neuralmine look LENS; there is {', '.join(summaries())}.")
    found = find(name)
    if "--help" in context.args or "-h" in context.args:
        _help(found)
        return
    from ..networks import load

    options = _options(found, context.args)
    loaded = load(network)
    nouns = [
        loaded if noun == "network" else _image(given, loaded) if noun == "input" else _data(dataset, loaded)
        for noun in found.nouns
    ]
    with waiting(found.name, as_json):
        finding = look_through(found.name, *nouns, **options)
    if save is not None:
        finding.save(save)
    if as_json:
        print(_as_json(finding))
    else:
        out.print(finding.text(), markup=False, highlight=False)
        if save is not None:
            out.print(f"\nSaved in {save}", markup=False)


def _as_json(finding: Any) -> str:
    numbers = {name: value.tolist() for name, value in finding.numbers.items()}
    checks = [{key: getattr(check, key) for key in check.__dataclass_fields__} for check in finding.checks]
    return json.dumps(
        {"lens": finding.lens, "summary": finding.summary, "numbers": numbers, "checks": checks,
         "params": finding.params, "provenance": finding.provenance}, default=str,
    )  # fmt: skip


def _help(found: Lens) -> None:
    out.print(f"neuralmine look {found.name}: {found.summary}\n", markup=False)
    out.print(
        f"Takes: {', '.join(found.nouns)} (--network, --input, --data). Also --json, --out FOLDER.\n", markup=False
    )
    for option in found.options:
        values = f" one of {', '.join(option.choices)}" if option.choices else ""
        span = f" {option.between[0]:g} to {option.between[1]:g}" if option.between else ""
        out.print(
            f"  --{option.name.replace('_', '-')}  {option.type}{values}{span}, default {option.default}: {option.help}",
            markup=False,
        )


def _options(found: Lens, words: list[str]) -> dict[str, Any]:
    types = {option.name: option.type for option in found.options}
    values: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise UsageError(f"{word!r} is not expected here.", "Write options as --name value.")
        key, equals, value = word[2:].partition("=")
        key = key.replace("-", "_")
        if not equals:
            if not rest and types.get(key) != "switch":
                raise UsageError(f"--{key} needs a value.", f"Write --{key} VALUE.")
            value = rest.pop(0) if rest and not (types.get(key) == "switch" and rest[0].startswith("--")) else "true"
        values[key] = (
            value == "true"
            if types.get(key) == "switch"
            else int(value)
            if value.isdigit() and types.get(key) == "target"
            else value
        )
    return values


def _image(given: str, network: Any) -> Any:
    import numpy as np

    from .. import datasets

    if network.domain == "tokens":
        return given
    from .. import pictures

    colour = len(network.shape) == 3 and network.shape[0] == 3
    given = given or ("chelsea" if colour else "digits:0")
    name, _, index = given.rpartition(":")
    if index.isdigit():
        loaded = datasets.load(name)
        if int(index) >= len(loaded):
            raise UsageError(f"{name} has images 0 to {len(loaded) - 1}, not {index}.", "Choose one of those.")
        return loaded.images[int(index)]
    if colour and given in datasets.PHOTOS:
        return pictures.fitted(datasets.photo(given), network.shape[1:])
    if not Path(given).exists():
        names = f", or a photo: {', '.join(datasets.PHOTOS)}" if colour else ""
        raise DataError(f"There is no picture {given}.", f"Write DATA:INDEX (digits:201) or a picture's path{names}.")
    picture = pictures.opened(given)
    if colour:
        return pictures.fitted(picture, network.shape[1:])
    from PIL import Image

    size = network.shape[-1], network.shape[-2] if len(network.shape) > 1 else 1
    return np.asarray(Image.fromarray(picture).convert("L").resize(size), dtype=float) / 255


def _data(name: str, network: Any) -> Any:
    from .. import datasets

    if len(network.shape) == 3 and network.shape[0] == 3:
        if name and name != "tiles":
            from ..datasets.stream import stream

            return stream(name, size=network.shape[1:])
        return datasets.load("tiles", size=network.shape[-1])
    loaded = datasets.load(name or "digits")
    few = len(network.labels) < len(loaded.classes) and set(network.labels) <= set(loaded.classes)
    return loaded.only(network.labels) if few else loaded


def _listing(kind: str, names: dict[str, str], as_json: bool) -> None:
    if as_json:
        print(json.dumps(names))
        return
    table = Table(kind, "what it is", box=None)
    for name, text in names.items():
        table.add_row(name, text)
    out.print(table)


@app.command()
def studies(as_json: AsJson = False) -> None:
    """The studies there are: one for each claim that can be measured here."""
    from ..studies import names

    _listing("study", dict(names()), as_json)


@app.command()
def study(
    name: str,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn at random.")] = 0,
    save: Annotated[Path | None, typer.Option("--out", help="Save the finding in this folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure one claim of the essays: the quote, what would prove it, the figures, the null, the verdict."""
    from ..studies import study as run

    with waiting(name, as_json):
        verdict = run(name, seed=seed)
    said = {key: getattr(verdict, key) for key in verdict.__dataclass_fields__ if key != "finding"}
    if save is not None and verdict.finding is not None:
        verdict.finding.save(save)
    if as_json:
        print(
            json.dumps(
                said | {"checks": [asdict(check) for check in verdict.finding.checks] if verdict.finding else []}
            )
        )
        return
    for key, text in said.items():
        out.print(f"{key.replace('_', ' '):>12}  {text}", markup=False, highlight=False)
    if verdict.finding is not None:
        out.print("\n" + verdict.finding.text(), markup=False, highlight=False)


@app.command()
def serve(
    port: Annotated[int | None, typer.Option(help="PORT of the environment, or 8765.", min=0, max=65535)] = None,
    host: Annotated[str, typer.Option(help="On any other than loopback a token is asked for.")] = "127.0.0.1",
    browser: Annotated[bool, typer.Option(help="Open the browser (also off with NO_BROWSER=1).")] = True,
) -> None:
    """Serve the web app until Ctrl-C."""
    from ..server import serve as run

    run(host, port, browser=None if browser else False)


@app.command()
def runs(
    resume: Annotated[str, typer.Option(help="Go on with the run of this name to its end.")] = "",
    discard: Annotated[str, typer.Option(help="Delete the run of this name.")] = "",
    open_seal: Annotated[
        str, typer.Option(help="Test the run of this name on its sealed images: once, as the last word on it.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """The log of training runs on this machine; unfinished ones can be resumed or discarded, and seals opened."""
    from ..stores import runs as store
    from ..stores import seals

    if discard:
        store.discard(store.find(discard))
        out.print(f"Discarded {discard}.")
        return
    if resume:
        _resume(resume)
        return
    if open_seal:
        path = store.find(open_seal)
        opened, used = seals.open_of(path), seals.used_by(path)
        print(json.dumps(opened)) if as_json else out.print(seals.words(opened, used), highlight=False)
        return
    listed = seals.log()
    if as_json:
        print(json.dumps(listed))
        return
    if not listed:
        out.print("No runs yet. Train one in the web app: neuralmine serve")
    for run in listed:
        last = run["last"]
        figures = f"step {last['index']}, loss {last['metrics'].get('loss', float('nan')):.4g}" if last else "no step"
        sizes = "-".join(map(str, run["architecture"]["sizes"]))
        out.print(
            f"{run['id']}  {run['data']['name']}  {sizes}  {figures}  {_tested(run)}{run['ended'] or 'unfinished'}",
            markup=False,
        )
    for words in dict.fromkeys(run["warning"] for run in listed):
        if words:
            out.print(f"{words} A sealed part (train --sealed 0.1) gives a last word.", highlight=False)


def _tested(run: Mapping[str, Any]) -> str:
    """A run's test accuracy, and beside it what its seal showed."""
    accuracy = run["last"]["metrics"].get("test_accuracy") if run["last"] else None
    test = "" if accuracy is None else f"test {100 * accuracy:.2f} %  "
    if run["seal"]:
        return f"{test}sealed part {100 * run['seal']['accuracy']:.2f} %  "
    return f"{test}sealed  " if run["data"].get("sealed") else test


@app.command()
def recordings(as_json: AsJson = False) -> None:
    """What nm.watch has recorded on this machine: steps, size, how it ended."""
    from ..stores import recordings as store

    rows = []
    for recording in store.listed():
        try:
            steps = recording.steps
            rows.append({
                "name": recording.path.name, "model": recording.about.get("model", ""), "records": len(steps),
                "last": steps[-1] if steps else None, "bytes": recording.size,
                "ended": recording.ended or ("being written" if recording.live else "cut off"),
            })  # fmt: skip
        except StoreError as error:
            rows.append({"name": recording.path.name, "ended": f"cannot be read: {error}"})
    if as_json:
        print(json.dumps(rows))
        return
    if not rows:
        out.print("No recordings yet. Write `with nm.watch(model) as run:` around your training loop.", markup=False)
    for row in rows:
        figures = (
            f"{row['records']} records to step {row['last']}  {row['bytes'] / 1e6:.1f} MB" if "bytes" in row else ""
        )
        out.print(f"{row['name']}  {row.get('model', '')}  {figures}  {row['ended']}", markup=False)


def _resume(name: str) -> None:
    from rich.progress import Progress

    from ..server import jobs
    from ..server.requests import ControlRequest

    job = jobs.get(name)
    epochs = float(job.settings()["epochs"])
    job.control(ControlRequest(do="play", speed="full"))
    with Progress(console=out) as bar:
        task = bar.add_task("training", total=epochs)
        for report in job.reports():
            if report and report["latest"]:
                loss = report["latest"]["metrics"].get("loss")
                bar.update(
                    task, completed=report["latest"]["epoch"], description=f"loss {loss:.4g}" if loss else "training"
                )
            if report and report["status"] in ("ended", "failed"):
                break
    if report["status"] == "failed":
        raise StoreError(report["message"], "The run is as it was after its last recorded step.")
    out.print(report["message"], markup=False)


@app.command()
def report(
    findings: Annotated[list[Path], typer.Argument(help="Folders written by `look --out`.")],
    to: Annotated[Path, typer.Option("--out", help="The HTML file to write.")] = Path("report.html"),
    title: str = "Neuralmine report",
) -> None:
    """Saved findings as one HTML file that opens from disk."""
    from ..reporting import report as write
    from ..stores.findings import load_finding

    write([load_finding(folder) for folder in findings], to, title)
    out.print(f"Written: {to}", markup=False)


from . import training  # noqa: E402, F401 (adds `neuralmine train`)
