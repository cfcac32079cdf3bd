"""Top examples of every map of a SqueezeNet 1.1: ours, and plain forward passes over the same batches, in turn.

The floor encodes the same pictures and runs the network on them; decoding files is in neither. Target: time ≤ 1.30 of
the floor. Memory: the growth of a child's peak from 200 to 800 streamed pictures. One line of JSON; `--quick` runs a
small version.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import neuralmine as nm
from neuralmine.datasets.stream import stream
from neuralmine.errors import NeuralmineError
from neuralmine.lenses.top_examples import strongest


class Fire(nn.Module):
    def __init__(self, given: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze, self.squeeze_activation = nn.Conv2d(given, squeezed, 1), nn.ReLU(inplace=True)
        self.expand1x1, self.expand1x1_activation = nn.Conv2d(squeezed, expanded, 1), nn.ReLU(inplace=True)
        self.expand3x3, self.expand3x3_activation = nn.Conv2d(squeezed, expanded, 3, padding=1), nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.squeeze_activation(self.squeeze(x))
        one, three = self.expand1x1(x), self.expand3x3(x)
        return torch.cat([self.expand1x1_activation(one), self.expand3x3_activation(three)], 1)


def squeezenet() -> Any:
    try:
        return nm.load("squeezenet")
    except NeuralmineError:
        pass
    torch.manual_seed(0)

    def pool() -> nn.Module:
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    fires = [pool(), Fire(64, 16, 64), Fire(128, 16, 64), pool(), Fire(128, 32, 128), Fire(256, 32, 128), pool()]
    fires += [Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256)]
    head = [nn.Dropout(), nn.Conv2d(512, 1000, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    module = nn.Sequential(nn.Conv2d(3, 64, 3, 2), nn.ReLU(inplace=True), *fires, *head)
    return nm.load(module, shape=(3, 224, 224), mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])


def seconds(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def peak(folder: str, count: int) -> float:
    """MiB at most in a child that walks over so many of the pictures."""
    code = (sys.executable, __file__, "--walk", folder, "--count", str(count))
    return float(subprocess.run(code, capture_output=True, text=True, check=True).stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--walk")
    parser.add_argument("--count", type=int, default=0)
    given = parser.parse_args()
    network = squeezenet()
    rows, columns = network.shape[-2:]
    if given.walk:
        list(strongest(network, stream(given.walk, size=(rows, columns)).take(slice(given.count)), batch=16))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    images, batch, rounds = (16, 8, 2) if given.quick else (96, 32, given.rounds)
    generator = np.random.default_rng(0)
    pictures = generator.uniform(0, 1, (images, rows, columns, 3)).astype(np.float32)
    data = nm.Dataset("random", pictures, np.zeros(images, dtype=int), ("random",))
    module = network.module.eval()

    @torch.no_grad()
    def floor() -> None:
        for start in range(0, images, batch):
            module(network.encode(pictures[start : start + batch]))

    encoded = [network.encode(pictures[start : start + batch]) for start in range(0, images, batch)]

    @torch.no_grad()
    def forward() -> None:
        for inputs in encoded:
            module(inputs)

    work = {"floor": floor, "ours": lambda: list(strongest(network, data, batch=batch)), "forward alone": forward}
    for one in work.values():
        one()
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, one in work.items():
            times[name].append(seconds(one))
    ratio = statistics.median(ours / plain for ours, plain in zip(times["ours"], times["floor"], strict=True))
    alone = statistics.median(ours / plain for ours, plain in zip(times["ours"], times["forward alone"], strict=True))
    from PIL import Image

    few, many = (8, 32) if given.quick else (200, 800)
    with tempfile.TemporaryDirectory() as folder:
        for i in range(many):
            pixels = generator.integers(0, 256, (rows, columns, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(Path(folder) / f"{i:04d}.png", compress_level=1)
        peaks = [peak(folder, count) for count in (few, many)]
    print(
        json.dumps(
            {
                "benchmark": f"top examples of every map of {network.name}, {images} pictures, batches of {batch}",
                "threads": torch.get_num_threads(),
                "rounds": rounds,
                "seconds": {name: round(statistics.median(found), 4) for name, found in times.items()},
                "ratio": round(ratio, 3),
                "ratio to forward alone": round(alone, 3),
                "target": 1.30,
                "met": ratio <= 1.30,
                "peak MiB": {str(few): round(peaks[0], 1), str(many): round(peaks[1], 1)},
            }
        )
    )


if __name__ == "__main__":
    main()
