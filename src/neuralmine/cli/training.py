"""neuralmine train: one net, or the same on several random splits with their spread."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ..errors import NetworkError, UsageError
from .commands import AsJson, app, out


@app.command()
def train(
    data: Annotated[
        str, typer.Argument(help="digits, mnist, xor, spirals, circles, a CSV file, a folder of images by class.")
    ] = "digits",
    preset: Annotated[
        str, typer.Option(help="A net of the catalogue with its own training; `best` is the most accurate.")
    ] = "",
    hidden: Annotated[str, typer.Option(help="Hidden widths, as 16,16; empty for none.")] = "16",
    activation: Annotated[
        str, typer.Option(help="sigmoid, tanh, relu, leaky_relu, gelu, or identity for none.")
    ] = "sigmoid",
    loss: Annotated[str, typer.Option(help="squared or cross_entropy.")] = "squared",
    bias: Annotated[bool, typer.Option(help="Give every neuron a bias.")] = True,
    dropout: Annotated[
        float, typer.Option(help="Share of hidden values zeroed while training.", min=0, max=0.95)
    ] = 0.0,
    batch_norm: Annotated[bool, typer.Option(help="Batch normalisation before each hidden activation.")] = False,
    optimizer: Annotated[
        str | None, typer.Option(help="sgd, gradient_descent, adam, one_weight_at_a_time, or any torch.optim class.")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    momentum: Annotated[float | None, typer.Option(help="Momentum (SGD).")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Weight decay.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images an update.")] = None,
    epochs: Annotated[int | None, typer.Option(help="How often every image is seen.")] = None,
    schedule: Annotated[str | None, typer.Option(help="constant, cosine, step or warmup.")] = None,
    shift: Annotated[float | None, typer.Option(help="Random shift of training images, pixels.")] = None,
    rotate: Annotated[float | None, typer.Option(help="Random rotation, degrees.")] = None,
    scale: Annotated[float | None, typer.Option(help="Random change of size, relative.")] = None,
    average: Annotated[float | None, typer.Option(help="Decay of the weights' moving average; 0 for none.")] = None,
    smoothing: Annotated[float | None, typer.Option(help="Label smoothing.")] = None,
    validation: Annotated[float | None, typer.Option(help="Share of training images kept aside to watch.")] = None,
    patience: Annotated[
        int | None, typer.Option(help="Early stopping: end after so many epochs without a lower loss on those.")
    ] = None,
    splits: Annotated[int, typer.Option(help="How many random splits, seeds --seed and up.", min=1, max=1000)] = 1,
    test: Annotated[float, typer.Option(help="Share of images held out.")] = 0.25,
    sealed: Annotated[
        float,
        typer.Option(
            help="Share of images that is neither trained on nor tested with; keeps the run: neuralmine runs --open-seal.",
            min=0,
            max=0.9,
        ),
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of the first split, its start weights and its batches.")] = 0,
    save: Annotated[Path | None, typer.Option("--out", help="Write the last net here (.safetensors).")] = None,
    as_json: AsJson = False,
) -> None:
    """Train a feed-forward net and say how well it does on images it has not seen, over several random splits."""
    import torch

    from .. import datasets

    asked = {"optimizer": optimizer, "lr": lr, "momentum": momentum, "weight_decay": weight_decay, "batch": batch,
             "epochs": epochs, "schedule": schedule, "shift": shift, "rotate": rotate, "scale": scale,
             "average": average, "smoothing": smoothing, "validation": validation, "patience": patience}  # fmt: skip
    whole = datasets.load(data)
    narrowed = False
    if preset:
        from ..networks.catalogue import preset as find

        found = find(preset)
        architecture, loss, settings = dict(found.architecture), found.loss, dict(found.training)
        if not settings:
            raise UsageError(f"{preset!r} is weighted by hand; there is nothing to train.", "Choose another preset.")
        narrowed = len(found.classes) != len(whole.classes)
        whole = whole.only(found.classes) if narrowed else whole
    else:
        architecture = {"name": "mlp", "sizes": [_pixels(whole), *_widths(hidden), len(whole.classes)],
                        "activation": activation, "output": "sigmoid" if loss == "squared" else "linear",
                        "bias": bias, "dropout": dropout, "batch_norm": batch_norm}  # fmt: skip
        settings = {"batch": 4}
    settings |= {name: value for name, value in asked.items() if value is not None}
    torch.set_num_threads(1)  # nets this small lose more than they gain by sharing the work
    results = _split_by_split(whole, architecture, loss, settings, range(seed, seed + splits), test, sealed, _name_of(data),
                              list(whole.classes) if narrowed else None, save, as_json)  # fmt: skip
    _say(whole, architecture, loss, settings, results, as_json)


def _split_by_split(
    whole: Any, architecture: Mapping[str, Any], loss: str, settings: Mapping[str, Any], seeds: range, test: float,
    sealed: float, name: str, narrowed: list[str] | None, save: Path | None, quiet: bool,
) -> list[dict[str, Any]]:  # fmt: skip
    from ..architectures import build
    from ..networks.files import save as write
    from ..networks.torch_module import network_of
    from ..training import Settings
    from ..training import train as steps

    results: list[dict[str, Any]] = []
    epochs = Settings().changed(**settings).epochs
    with Progress(
        TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), disable=quiet, console=out
    ) as bar:
        task = bar.add_task("training", total=len(seeds) * epochs)
        for number, split_seed in enumerate(seeds):
            part, held_out = whole.split(test, split_seed, sealed)
            given = {"name": name, "seed": split_seed, "test": test, "sealed": sealed, "classes": narrowed}
            network = network_of(
                build({**architecture, "seed": split_seed}), shape=whole.shape, labels=whole.classes, loss=loss
            )
            began, step = time.perf_counter(), None
            for step in steps(network, part, test=held_out, seed=split_seed, **settings):
                text = f"split {number + 1} of {len(seeds)}, epoch {step.epoch:.0f}, loss {step.metrics['loss']:.4g}"
                bar.update(task, completed=number * epochs + step.epoch, description=text)
            assert step is not None
            stopped = next((t for t in step.trouble if t.stops), None)
            if stopped:
                raise NetworkError(f"Split seed {split_seed}: {stopped.what}", f"{stopped.why} {stopped.advice}")
            results.append(
                {
                    "seed": split_seed,
                    "accuracy": step.metrics["test_accuracy"],
                    "train_accuracy": step.metrics["train_accuracy"],
                    "loss": step.metrics["loss"],
                    "dead_outputs": int(step.metrics["dead_outputs"]),
                    "seconds": time.perf_counter() - began,
                }
            )
            if sealed:
                kept = _kept(given, whole, {**architecture, "seed": split_seed}, loss,
                             {"seed": split_seed, **settings}, step)  # fmt: skip
                results[-1] |= {"run": kept.name, "sealed": len(whole.sealed_indices(test, split_seed, sealed))}
            if save is not None and split_seed == seeds[-1]:
                trained_on = f"{whole.name}, split seed {split_seed}: {len(part)} training images"
                write(network, save, architecture, trained_on)
    return results


def _kept(
    given: Mapping[str, Any], whole: Any, architecture: Mapping[str, Any], loss: str, settings: Mapping[str, Any],
    step: Any,
) -> Path:  # fmt: skip
    """The trained net as a run in the log, so that its seal can be opened."""
    from dataclasses import asdict

    from ..stores import runs, seals
    from ..training import Settings

    path = runs.create(
        {
            "data": given, **seals.parts(whole, given), "architecture": dict(architecture), "loss": loss,
            "classes": list(whole.classes), "shape": list(whole.shape),
            "settings": asdict(Settings().changed(**settings)), "start": None, "only": None,
        }
    )  # fmt: skip
    runs.record(path, step)
    runs.append(path, {"ended": "finished", "index": step.index})
    return path


def _name_of(data: str) -> str:
    """The data's name, or the path as it is found from any folder."""
    from .. import datasets

    return data if data in datasets.names() else str(Path(data).expanduser().resolve())


def _say(
    whole: Any, architecture: Mapping[str, Any], loss: str, settings: Mapping[str, Any], results: list, as_json: bool
) -> None:
    import numpy as np

    accuracy = np.array([result["accuracy"] for result in results])
    spread = float(accuracy.std(ddof=1)) if len(accuracy) > 1 else None
    said = {
        "data": whole.name,
        "note": whole.note,
        "architecture": dict(architecture),
        "loss": loss,
        "settings": dict(settings),
        "accuracy": {"mean": float(accuracy.mean()), "sd": spread, "min": float(accuracy.min()),
                     "max": float(accuracy.max()), "n": len(accuracy)},
        "dead_outputs": sum(result["dead_outputs"] for result in results),
        "seconds": float(sum(result["seconds"] for result in results)),
        "splits": results,
    }  # fmt: skip
    if as_json:
        print(json.dumps(said))
        return
    plus = f" ± {100 * spread:.2f}" if spread is not None else ""
    sizes = "-".join(map(str, architecture["sizes"]))
    out.print(
        f"{sizes}, {loss}: {100 * accuracy.mean():.2f}{plus} % right on unseen images "
        f"(from {100 * accuracy.min():.1f} to {100 * accuracy.max():.1f}, {len(accuracy)} splits, "
        f"{said['dead_outputs']} dead outputs, {said['seconds']:.1f} s).",
        highlight=False,
    )
    out.print(whole.note, highlight=False)
    for result in results:
        if "run" in result:
            out.print(
                f"{result['sealed']} images stay sealed. When all is chosen: neuralmine runs --open-seal {result['run']}",
                highlight=False,
            )


def _pixels(data: Any) -> int:
    count = 1
    for length in data.shape:
        count *= length
    return count


def _widths(text: str) -> list[int]:
    try:
        return [int(word) for word in text.replace(" ", "").split(",") if word]
    except ValueError:
        raise UsageError(
            f"--hidden {text!r} is no list of widths.", "Write whole numbers with commas: 16,16."
        ) from None
