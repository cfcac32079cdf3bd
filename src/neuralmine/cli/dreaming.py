"""neuralmine dream: a photo, and one dream for each layer, as pictures, a contact sheet and an animation."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ..errors import UsageError
from .commands import AsJson, app, out


@app.command()
def dream(
    photo: Annotated[str, typer.Argument(help="A picture's path, or the name of a photo that comes along (chelsea).")],
    network: Annotated[str, typer.Option(help="A catalogue name, a file, or module:function.")] = "squeezenet",
    layers: Annotated[str, typer.Option(help="Names with commas, or all for one of each stage.")] = "all",
    folder: Annotated[
        Path | None, typer.Option("--out", help="Where each layer's PNG is kept; without it PHOTO-dream.")
    ] = None,
    gif: Annotated[Path | None, typer.Option(help="Write an animation: .gif, or .webp or .mp4.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet (PNG).")] = None,
    zoom: Annotated[
        Path | None, typer.Option(help="Also zoom into the last layer's dream, as a video: .mp4, or .webp or .gif.")
    ] = None,
    frames: Annotated[int, typer.Option(help="Pictures of the zooming video, 16 a second.", min=2, max=5000)] = 96,
    seconds: Annotated[float, typer.Option(help="How long the animation shows each layer.")] = 0.8,
    octaves: Annotated[int, typer.Option(help="How many sizes, from small to the photo's own.")] = 3,
    scale: Annotated[float, typer.Option(help="How much larger each size is than the one before it.")] = 1.4,
    steps: Annotated[int, typer.Option(help="Steps in each size.")] = 10,
    strength: Annotated[float, typer.Option(help="How far a step moves the picture on average, in 255ths.")] = 2.0,
    jitter: Annotated[int, typer.Option(help="Largest random shift before a step, in pixels.")] = 16,
    smooth: Annotated[float, typer.Option(help="Blur of each gradient, sd in pixels.")] = 0.0,
    tile: Annotated[int, typer.Option(help="Side of the squares in which large photos are worked on.")] = 512,
    budget: Annotated[
        float, typer.Option(help="L2 of every layer's change per value; 0 leaves them as they come.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(help="Of the random shifts.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Dream one layer after the other into a photo. Ctrl-C leaves the finished ones; the same command goes on."""
    from ..moving import FORMATS, write_frames, write_picture
    from ..moving import sheet as contact_sheet
    from ..networks import load
    from ..octaves import eight_bits, scene_of, series_steps

    for film in (gif, zoom):
        if film is not None and film.suffix.lower() not in FORMATS:
            raise UsageError(f"{film} has an unknown ending.", f"Use one of {', '.join(FORMATS)}.")
    if sheet is not None and sheet.suffix.lower() != ".png":
        raise UsageError(f"{sheet} has an unknown ending.", "A contact sheet is a .png.")
    given, name = _photo(photo)
    loaded = load(network)
    keep = folder or Path(f"{name}-dream")
    settings: dict[str, Any] = {
        "octaves": octaves, "scale": scale, "steps": steps, "strength": strength, "jitter": jitter, "smooth": smooth,
        "tile": tile, "budget": budget, "seed": seed,
    }  # fmt: skip
    done: list[Any] = []
    zoomed: list[Any] = []
    stopped, count = False, 0
    try:
        with _bar(as_json) as bar:
            for rung in _followed(series_steps(loaded, given, layers=layers, keep=keep, **settings), loaded, bar):
                count = len(rung.layers)
                if rung.picture is not None:
                    done.append(rung)
                    _say(rung, bar, as_json)
            if zoom is not None and done:
                zoomed = _zoomed(loaded, given, done[-1].layer, settings, frames, bar)
    except KeyboardInterrupt:
        stopped = True
    written = [keep / f"{rung.index + 1:02d}-{rung.layer.replace('/', '_')}.png" for rung in done]
    if done:
        original = eight_bits(scene_of(loaded, given, done[0].layers).photo)
        names, pictures = [*(rung.layer for rung in done), "the photo"], [*(rung.picture for rung in done), original]
        about = {"network": loaded.name, "layers": names[:-1], "weights": done[0].about["weights"], **settings}
        written.append(write_picture(original, keep / f"{count + 1:02d}-the-photo.png", about))
        if sheet is not None:
            written.append(write_picture(contact_sheet(pictures, names), sheet, about))
        if gif is not None:
            written.append(write_frames(pictures, gif, seconds=seconds, names=names, about=about))
        if zoom is not None and zoomed:
            written.append(write_frames(zoomed, zoom, seconds=1 / 16, about={**about, "zoom": done[-1].layer}))
    if as_json:
        told = [dict(rung.about) for rung in done]
        print(json.dumps({"stopped": stopped, "layers": told, "written": list(map(str, written))}))
    else:
        for path in [keep, *written[len(done) + 1 :]]:
            out.print(f"Written: {path}", markup=False, highlight=False)
    if stopped:
        rest = f"{len(done)} of {count} layers are finished" if count else "No layer was finished"
        print(f"neuralmine: stopped. {rest}; the same command goes on from there.", file=sys.stderr)
        raise typer.Exit(130)


def _photo(photo: str) -> tuple[Any, str]:
    from ..datasets.photos import PHOTOS
    from ..datasets.photos import photo as known

    if photo in PHOTOS and not Path(photo).exists():
        return known(photo), photo
    return photo, Path(photo).stem


def _bar(quiet: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    return Progress(*columns, disable=quiet, console=out)


def _followed(rungs: Any, network: Any, bar: Progress) -> Any:
    """The series itself, with the bar moved on at each step by what the step cost."""
    from ..octaves import cost

    task, costs = bar.add_task("…", total=None), []
    for rung in rungs:
        if not costs:
            costs = [cost(network, name) for name in rung.layers]
            bar.update(task, total=sum(costs))
        before, own = sum(costs[: rung.index]), costs[rung.index]
        if rung.frame is None:
            bar.update(task, completed=before + own)
        else:
            frame = rung.frame
            where = f"{rung.layer} ({rung.index + 1} of {len(rung.layers)}), octave {frame.octave + 1} of {frame.octaves}, step {frame.step + 1} of {frame.steps}"
            bar.update(task, completed=before + own * frame.done, description=where)
        yield rung


def _zoomed(network: Any, photo: Any, layer: str, settings: dict[str, Any], frames: int, bar: Progress) -> list[Any]:
    """The pictures of the zooming video."""
    from ..octaves import Settings, scene_of, wanted_of, zooming_steps

    scene = scene_of(network, photo, [layer])
    walk = zooming_steps(scene, wanted_of(scene, layer=layer), Settings(**settings), frames=frames)
    return list(bar.track(walk, total=frames, description=f"zooming into {layer}"))


def _say(rung: Any, bar: Progress, quiet: bool) -> None:
    if quiet:
        return
    before, after = rung.about["objective"]
    times = f"{after / before:.3g} times" if before > 0 else f"from {before:.3g} to {after:.3g}"
    read = " (was there already)" if rung.read else ""
    note = f" {rung.about['note']}" if rung.about["note"] else ""
    bar.console.print(f"{rung.layer}: the objective grew {times}{read}.{note}", markup=False, highlight=False)
