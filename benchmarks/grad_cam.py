"""Grad-CAM of a batch of 16 at a ResNet-50's last stage: ours, captum's, and hooks by hand.

The floor runs without a graph up to the layer, with one only behind it, and back to the layer. Targets: time ≤ 1.05 of
it, peak memory ≤ 0.25 GB, which is 1.4 × the floor's. `--quick` runs a small version.
"""

from __future__ import annotations

import copy
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from trace_resnet50 import ResNet50
from trace_rounds import Variant, compare, network_of, options

from neuralmine.lenses.grad_cam import class_maps

LAYER = "layer4"
TO_LAYER = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", LAYER)


def weighted(maps: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
    """Each map times its mean gradient, added up."""
    return torch.einsum("bc,bchw->bhw", slopes.flatten(2).mean(2), maps)


@torch.enable_grad()
def shortest(module: ResNet50, x: torch.Tensor, targets: list[int]) -> torch.Tensor:
    """The least work there is: a graph from the layer on and no earlier."""
    maps = x
    with torch.no_grad():
        for name in TO_LAYER:
            maps = module.get_submodule(name)(maps)
    maps.requires_grad_()
    scores = module.fc(torch.flatten(module.avgpool(maps), 1))
    (slopes,) = torch.autograd.grad(scores[range(len(targets)), targets].sum(), maps)
    return weighted(maps.detach(), slopes)


@torch.enable_grad()
def by_hand(module: nn.Module, x: torch.Tensor, targets: list[int]) -> torch.Tensor:
    """The usual recipe: a forward hook, a gradient hook, and backward through everything."""
    maps: list[torch.Tensor] = []
    slopes: list[torch.Tensor] = []

    def keep(part: nn.Module, args: Any, output: torch.Tensor) -> None:
        maps.append(output.detach())
        output.register_hook(slopes.append)

    handle = module.get_submodule(LAYER).register_forward_hook(keep)
    try:
        scores = module(x)
        scores[range(len(targets)), targets].sum().backward()
    finally:
        handle.remove()
        module.zero_grad(set_to_none=True)
    return weighted(maps[0], slopes[0])


def captum_of(module: nn.Module, x: torch.Tensor, targets: list[int]) -> dict[str, Variant]:
    """Nothing when it is not installed."""
    if not find_spec("captum"):
        return {}
    from captum.attr import LayerGradCam

    module = copy.deepcopy(module)
    chosen = torch.tensor(targets)

    @torch.enable_grad()
    def run() -> torch.Tensor:
        found = LayerGradCam(module, module.get_submodule(LAYER)).attribute(x, target=chosen)
        assert isinstance(found, torch.Tensor)
        return found[:, 0].detach()

    return {"captum": run}


def main() -> None:
    given = options()
    batch, size = (2, 64) if given.quick else (16, 224)
    module = ResNet50().eval()
    x = torch.randn(batch, 3, size, size)
    targets = torch.randint(1000, (batch,)).tolist()
    network = network_of(module, x)
    variants: dict[str, Variant] = {
        "floor": lambda: shortest(module, x, targets),
        "ours": lambda: class_maps(network, x, LAYER, targets)[0],
        "by hand": lambda: by_hand(module, x, targets),
        **captum_of(module, x, targets),
    }

    def differences() -> dict[str, Any]:
        right = variants["floor"]()
        others = {name: variant() for name, variant in variants.items() if name != "floor"}
        return {
            "off by": {name: float((found - right).abs().max() / right.abs().max()) for name, found in others.items()}
        }

    compare(
        f"Grad-CAM at {LAYER} of a ResNet-50, batch {batch}, {size} px",
        given,
        variants,
        {"time": ("floor", 1.05), "memory": ("floor", 1.4)},
        check=differences,
    )


if __name__ == "__main__":
    main()
