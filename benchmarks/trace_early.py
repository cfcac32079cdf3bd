"""Trace one early layer of a ResNet-50: ours, and peers, which run the whole network.

The floor is the forward truncated after that layer. Target: ≤ 1.10 of it. `--quick` runs a small version.
"""

from __future__ import annotations

import copy
from importlib.util import find_spec

import torch
from torch import nn
from trace_resnet50 import ResNet50
from trace_rounds import Variant, compare, network_of, options

import neuralmine as nm

LAYER = "layer1.0.bn3"  # overwritten in place right after


def truncated(module: ResNet50, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    block = module.layer1[0]
    x = module.maxpool(module.relu(module.bn1(module.conv1(x))))
    identity = block.downsample(x)
    out = block.relu(block.bn2(block.conv2(block.relu(block.bn1(block.conv1(x))))))
    return block.bn3(block.conv3(out)), identity


def by_hook(module: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """The usual recipe: a hook that copies, and the whole forward."""
    found: list[torch.Tensor] = []
    handle = module.get_submodule(LAYER).register_forward_hook(lambda _, __, output: found.append(output.clone()))
    try:
        module(x)
    finally:
        handle.remove()
    return found


def nnsight_early(module: nn.Module, x: torch.Tensor) -> dict[str, Variant]:
    if not find_spec("nnsight"):
        return {}
    from nnsight import NNsight

    model = NNsight(copy.deepcopy(module))  # it replaces every module's forward, and leaves hooks

    def stops() -> object:
        with torch.no_grad(), model.trace(x) as tracer:
            value = model.get(LAYER).output.save()
            tracer.stop()
        return value

    return {"nnsight with stop": stops}


def main() -> None:
    given = options()
    batch, size = (1, 32) if given.quick else (8, 224)
    module = ResNet50().eval()
    x = torch.randn(batch, 3, size, size)
    network = network_of(module, x)
    compare(
        f"trace {LAYER} of a ResNet-50, batch {batch}, {size} px",
        given,
        {
            "floor": lambda: truncated(module, x),
            "ours": lambda: nm.trace(network, x, layers=[LAYER])[LAYER].value,
            "hook, whole network": lambda: by_hook(module, x),
            **nnsight_early(module, x),
        },
        {"time": ("floor", 1.10)},
        check=lambda: {
            "right": torch.equal(nm.trace(network, x, layers=[LAYER])[LAYER].value, truncated(module, x)[0].detach())
        },
    )


if __name__ == "__main__":
    main()
