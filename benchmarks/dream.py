"""A dream ladder: 12 layers on a 320 px photo by a SqueezeNet 1.1, and the peak memory of a 4,000 px photo.

The floor is the forward and backward passes alone, truncated after each layer, weights frozen, at the same sizes and as
often, once in torch's usual order of numbers and once with the colours of a pixel side by side. Targets: time ≤ 1.30 of the first; under 2 GB for a dream of the deepest layer into 4,000 × 3,000 pixels,
measured in a fresh process. One line of JSON; `--quick` runs a small version.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as the command line does; read at torch's first use

import numpy as np
import torch

import neuralmine as nm
from neuralmine.errors import NeuralmineError
from neuralmine.networks.vision import load_vision
from neuralmine.octaves import Settings, climb, ladder, octave_sizes, resized, scene_of, series_steps, wanted_of


def network_of() -> Any:
    try:
        return nm.load("squeezenet")
    except NeuralmineError:
        return load_vision("squeezenet", trained=False)


def photo_of(rows: int, columns: int) -> np.ndarray:
    """Smooth and rough at once, as photos are: noise of every size."""
    generator = np.random.default_rng(0)
    whole = np.zeros((rows, columns, 3), np.float32)
    for size in (4, 16, 64, 256):
        noise = torch.as_tensor(generator.uniform(-1, 1, (1, 3, size, size)).astype(np.float32))
        whole += torch.nn.functional.interpolate(noise, (rows, columns), mode="bilinear")[0].permute(1, 2, 0).numpy()
    return ((whole / 8 + 0.5).clip(0, 1) * 255).astype(np.uint8)


def passes(
    module: torch.nn.Sequential, layer: str, inputs: list[torch.Tensor], steps: int, order: torch.memory_format
) -> float:
    """Seconds of the forward and backward passes alone, as far as one of `features`."""
    part = module[: int(layer.rsplit(".", 1)[1]) + 1]
    begin = time.perf_counter()
    for fed in inputs:
        for _ in range(steps):
            fed.requires_grad_(True)
            torch.autograd.grad(part(fed.clone(memory_format=order)).square().mean(), fed)
    return time.perf_counter() - begin


def peak(rows: int, columns: int, steps: int) -> None:
    """In a fresh process: dream, and print the most memory it ever had, in MB, before the dream and after it."""
    network, picture = network_of(), photo_of(rows, columns)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.perf_counter()
    for rung in series_steps(network, picture, layers="features.12", steps=steps, octaves=3, budget=0.1):
        done = rung.picture
    assert done is not None
    assert done.shape == picture.shape
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([round(before / 1024, 1), round(after / 1024, 1), round(time.perf_counter() - begin, 1)]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peak", type=int, nargs=3, metavar=("ROWS", "COLUMNS", "STEPS"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.peak:
        peak(*given.peak)
        return
    rounds, steps, size = (1, 2, (96, 128)) if given.quick else (given.rounds, 5, (240, 320))
    network, picture = network_of(), photo_of(*size)
    rungs = [layer.name for layer in ladder(network)]
    settings = Settings(steps=steps)
    scene = scene_of(network, picture, rungs)
    for parameter in (module := network.module.eval()).parameters():
        parameter.requires_grad_(False)
    ours: dict[str, list[float]] = {name: [] for name in rungs}
    floor: dict[str, list[float]] = {name: [] for name in rungs}
    last: dict[str, list[float]] = {name: [] for name in rungs}
    for turn in range(rounds + 1):
        for name in rungs:
            wanted = wanted_of(scene, layer=name)
            begin = time.perf_counter()
            for _ in climb(scene, wanted, settings):
                pass
            mine = time.perf_counter() - begin
            sizes = octave_sizes(scene, wanted, settings)[0]
            inputs = [scene.fed(resized(torch.as_tensor(scene.photo), size)) for size in sizes]
            plain = passes(module.features, name, inputs, steps, torch.contiguous_format)
            beside = passes(module.features, name, inputs, steps, torch.channels_last)
            if turn:  # the first round warms up
                ours[name].append(mine)
                floor[name].append(plain)
                last[name].append(beside)
    totals = [
        (sum(ours[name][k] for name in rungs), sum(floor[name][k] for name in rungs)) for k in range(rounds)
    ]  # each round's own ratio: the machine is shared
    ratio = statistics.median(mine / plain for mine, plain in totals)
    tall, wide = (300, 400) if given.quick else (3000, 4000)
    child = [sys.executable, __file__, "--peak", str(tall), str(wide), "2", "--threads", str(given.threads)]
    before, after, seconds = json.loads(subprocess.run(child, capture_output=True, text=True, check=True).stdout)
    print(
        json.dumps(
            {
                "benchmark": f"dream ladder of {len(rungs)} layers, {size[1]} × {size[0]} px, 3 octaves × {steps} steps",
                "threads": torch.get_num_threads(),
                "rounds": rounds,
                "seconds": {
                    "ours": round(statistics.median(mine for mine, _ in totals), 3),
                    "floor": round(statistics.median(plain for _, plain in totals), 3),
                },
                "ratio": round(ratio, 3),
                "ratio to colours side by side": round(
                    statistics.median(totals[k][0] / sum(last[name][k] for name in rungs) for k in range(rounds)), 3
                ),
                "by layer": {
                    name: round(statistics.median(a / b for a, b in zip(ours[name], floor[name], strict=True)), 2)
                    for name in rungs
                },
                "target": 1.30,
                "met": None if given.quick else ratio <= 1.30,
                "peak MB": {"photo": f"{wide} × {tall}", "before": before, "at most": after, "seconds": seconds},
                "peak target MB": 2000,
                "peak met": None if given.quick else after < 2000,
            }
        )
    )


if __name__ == "__main__":
    main()
