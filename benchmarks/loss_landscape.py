"""The loss surface 41 × 41 around the digits net, on all 1,797 images and on 128: ours, the peer, and 1,681 forwards.

The floor is 1,681 plain forward passes in float32 with no loss at all, twice as fast as in the network's own float64;
both are timed. Ours includes everything: directions, the first layer's products, the network's own loss. The peer is
loss-landscapes 3.0.6 on the float32 copy, when it is installed (its mean over outputs stands for the loss). Targets:
≤ 0.95 of the floor on all images, ≤ 0.30 on 128; the centre equal to the true loss, heights within 1e-5 of a float64
loop. One line of JSON; `--quick` runs a small version.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

import neuralmine as nm
from neuralmine.losses import mean_loss
from neuralmine.surfaces import Landscape, random_plane, surface, surface_steps

SIZE, TARGETS = 41, {"all": 0.95, "128": 0.30}


def slow_loop(network: Any, data: Any, axis: np.ndarray) -> np.ndarray:
    """Point by point in float64, the weights set by hand."""
    module, plane = copy.deepcopy(network.module).double().eval(), random_plane(network)
    inputs, labels = network.encode(data.images).double(), torch.as_tensor(np.asarray(data.labels)).long()
    own = {name: p.detach().clone() for name, p in module.named_parameters()}
    found = np.empty((len(axis), len(axis)))
    for i, b in enumerate(axis):
        for j, a in enumerate(axis):
            with torch.no_grad():
                for name, p in module.named_parameters():
                    p.copy_(own[name] + torch.as_tensor(a * plane.directions[0][name] + b * plane.directions[1][name]))
                found[i, j] = mean_loss(network.loss, module(inputs), labels)
    return found


def peer_of(module: torch.nn.Module, inputs: torch.Tensor, labels: torch.Tensor, size: int) -> Callable[[], Any] | None:
    if not find_spec("loss_landscapes"):
        return None
    import loss_landscapes
    from loss_landscapes.metrics import Loss

    module = copy.deepcopy(module)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    metric = Loss(torch.nn.functional.mse_loss, inputs, torch.nn.functional.one_hot(labels, 10).to(inputs.dtype))
    return lambda: loss_landscapes.random_plane(module, metric, 1, size, normalization="filter", deepcopy_model=True)


def seconds(run: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def measure(network: Any, data: Any, size: int, rounds: int) -> dict[str, Any]:
    axis = np.linspace(-1, 1, size)
    own = network.module.eval()
    single, labels = copy.deepcopy(own).float(), torch.as_tensor(np.asarray(data.labels)).long()
    inputs = network.encode(data.images)
    small = inputs.float()

    def forwards(module: torch.nn.Module, given: torch.Tensor) -> None:
        with torch.no_grad():
            for _ in range(size * size):
                module(given)

    first: list[float] = []

    def progressive() -> None:
        begin = time.perf_counter()
        for step in surface_steps(Landscape(network, data, random_plane(network)), axis, axis):
            if step.done == 36:
                first.append(time.perf_counter() - begin)

    variants: dict[str, Callable[[], Any]] = {
        "floor": lambda: forwards(single, small),
        "ours": lambda: surface(Landscape(network, data, random_plane(network)), axis, axis),
        "ours, coarse first": progressive,
        "floor in float64": lambda: forwards(own, inputs),
    }
    if peer := peer_of(single, small, labels, size):
        variants["loss-landscapes"] = peer
    times: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds + 1):
        for name, run in variants.items():
            took = seconds(run)
            if turn:  # the first round warms up
                times[name].append(took)
    landscape = Landscape(network, data, random_plane(network))
    coarse = axis[:: 8 if size > 8 else 1]
    off = np.abs(surface(landscape, coarse, coarse) - slow_loop(network, data, coarse)).max()
    return {
        "seconds": {name: round(statistics.median(took), 4) for name, took in times.items()},
        "of floor": {
            name: round(statistics.median(a / b for a, b in zip(took, times["floor"], strict=True)), 3)
            for name, took in times.items()
        },
        "first picture, seconds": round(statistics.median(first), 4) if first else None,
        "off a float64 loop": float(off),
        "centre off the true loss": float(abs(landscape.at([[0.0, 0.0]])[0] - landscape.centre)),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    size, rounds = (7, 1) if given.quick else (SIZE, given.rounds)
    network, data = nm.load("64-16-10"), nm.datasets.load("digits")
    rows = {
        "all": measure(network, data, size, rounds),
        "128": measure(network, data.take(slice(0, 128)), size, rounds),
    }
    print(
        json.dumps(
            {
                "benchmark": f"loss surface {size} × {size} of the 64-16-10 digits net",
                "threads": given.threads,
                "rounds": rounds,
                **{f"{name} images": row for name, row in rows.items()},
                "peer": "loss-landscapes" if find_spec("loss_landscapes") else "loss-landscapes is not installed",
                "targets": TARGETS,
                "met": None if given.quick else {n: rows[n]["of floor"]["ours"] <= t for n, t in TARGETS.items()},
            },
            ensure_ascii=False,
        )
    )


if __name__ == "__main__":
    main()
