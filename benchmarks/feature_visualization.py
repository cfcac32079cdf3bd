"""One step of feature visualisation, half-way up a SqueezeNet 1.1 (227 px) and a ResNet-50 (224 px).

Ours is a whole step: the picture from its Fourier spectrum, colours, moves, the network to the layer and back, Adam.
The floor is the truncated network alone, forward and backward with frozen parameters, on the very shapes that ours
feeds it (the moves make them 248 to 277 px). Target: ≤ 1.25 of the floor; 16 units in one batch ≤ 0.75 of sixteen
single runs. Lucent 0.1.8 cannot be measured beside it: it imports torchvision, and asks kornia for what kornia no
longer has; "hook, whole network" is what its step costs without its picture and moves.
One line of JSON; `--quick` runs a small version.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from trace_resnet50 import ResNet50

import neuralmine as nm
from neuralmine import images
from neuralmine.errors import NeuralmineError
from neuralmine.lenses.feature_visualization import visualize

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
UNIT = 10


def networks(size: int) -> Iterator[tuple[str, Any, str, nn.Module]]:
    """Name, network, layer, and the network cut off after the layer."""
    try:
        squeezenet = nm.load("squeezenet")
    except NeuralmineError:
        squeezenet = nm.load("squeezenet", trained=False)
    yield "squeezenet features.6", squeezenet, "features.6", squeezenet.module.get_submodule("features")[:7]  # type: ignore[index]
    torch.manual_seed(0)
    module = ResNet50().eval()
    stem = (module.conv1, module.bn1, module.relu, module.maxpool, module.layer1, module.layer2)
    resnet = nm.load(module, shape=(3, size, size), mean=MEAN, std=STD)
    yield "resnet50 layer2", resnet, "layer2", nn.Sequential(*stem)


def shapes(size: int, steps: int) -> list[tuple[int, int]]:
    """What the moves of seed 0 make of the picture, step after step."""
    generator, sheet = torch.Generator().manual_seed(0), torch.zeros(1, 1, size, size)
    found = []
    for _ in range(steps):
        found.append(tuple(images.moved(sheet, images.drawn_moves(size, size, generator)).shape[2:]))
    return found


def floor(part: nn.Module, x: torch.Tensor) -> Any:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(part(x)[:, UNIT].mean(), x)


def whole(module: nn.Module, layer: str, x: torch.Tensor) -> Any:
    """What a hook on the layer costs: all of the network forward, and gradients for the weights too."""
    found: list[torch.Tensor] = []
    handle = module.get_submodule(layer).register_forward_hook(lambda _, __, output: found.append(output))
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    try:
        x = x.detach().requires_grad_()
        module(x)
        found[0][:, UNIT].mean().backward()
    finally:
        handle.remove()
        for parameter in module.parameters():
            parameter.requires_grad_(False)
            parameter.grad = None
    return x.grad


def measured(name: str, network: Any, layer: str, part: nn.Module, rounds: int) -> dict[str, Any]:
    size = network.shape[-1]  # a smaller picture would be brought to this size, and the shapes be others
    for parameter in part.parameters():
        parameter.requires_grad_(False)

    def walk(units: str, seed: int = 0) -> Any:
        return visualize(network, layer=layer, units=units, size=size, steps=10 * rounds + 20, seed=seed)

    ours, many = walk(str(UNIT)), walk(",".join(map(str, range(16))))
    singles = [walk(str(unit)) for unit in range(16)]
    inputs = [torch.randn(1, 3, *shape) for shape in shapes(size, 10 * rounds + 20)]
    times: dict[str, list[float]] = {"floor": [], "ours": [], "floor channels_last": [], "hook, whole network": []}

    def timed(name: str, work: Callable[[], Any]) -> None:
        begin = time.perf_counter()
        with torch.enable_grad():
            work()
        times[name].append(time.perf_counter() - begin)

    next(ours), next(ours)  # the first step of a generator ends before its update
    floor(part, inputs[0])
    for step in range(1, rounds + 1):
        x = inputs[step]
        timed("floor", lambda: floor(part, x))  # noqa: B023
        timed("ours", lambda: next(ours))
        x = x.contiguous(memory_format=torch.channels_last)
        timed("floor channels_last", lambda: floor(part, x))  # noqa: B023
        if step <= 5:
            timed("hook, whole network", lambda: whole(network.module, layer, inputs[step]))  # noqa: B023
    batched: dict[str, list[float]] = {"one batch": [], "sixteen runs": []}
    for one in (many, *singles):
        next(one)
    for _ in range(max(2, rounds // 6)):
        begin = time.perf_counter()
        next(many)
        middle = time.perf_counter()
        for one in singles:
            next(one)
        batched["one batch"].append(middle - begin)
        batched["sixteen runs"].append(time.perf_counter() - middle)

    def ratio(a: list[float], b: list[float]) -> float:
        return round(statistics.median(x / y for x, y in zip(a, b, strict=False)), 3)

    for parameter in part.parameters():
        parameter.requires_grad_(True)
    return {
        "work": name,
        "ms": {key: round(1e3 * statistics.median(found), 1) for key, found in (times | batched).items()},
        "ratio_to_floor": {key: ratio(found, times["floor"]) for key, found in times.items()},
        "batch_to_singles": ratio(batched["one batch"], batched["sixteen runs"]),
        "met": {
            "step ≤ 1.25": ratio(times["ours"], times["floor"]) <= 1.25,
            "batch ≤ 0.75": ratio(batched["one batch"], batched["sixteen runs"]) <= 0.75,
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    size, rounds = (64, 3) if given.quick else (224, given.rounds)
    found = [measured(*one, rounds) for one in networks(size)]
    print(json.dumps({"benchmark": f"feature visualisation, one step at {size} px", "threads": given.threads, "rounds": rounds, "work": found}, ensure_ascii=False))  # fmt: skip


if __name__ == "__main__":
    main()
