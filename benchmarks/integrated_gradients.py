"""Integrated gradients of a SqueezeNet's picture in 32 steps: ours, captum by default and in the same batches.

The floor runs the same batches, made beforehand, forward and backward to the pixels with frozen weights, and nothing
else. Target: time ≤ 1.05 of it, although ours also asks what the network says of the picture and of the empty one, and
makes a finding; what of that can be had alone is timed too. `--quick` runs a small version.
"""

from __future__ import annotations

import copy
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from trace_rounds import Variant, compare, options

import neuralmine as nm
from neuralmine.attribution import question
from neuralmine.lens import array_hash, find, weights_hash

TARGET = 281


@torch.enable_grad()
def slopes_of(module: torch.nn.Module, batches: list[torch.Tensor]) -> list[torch.Tensor]:
    """The least work there is."""
    found = []
    for batch in batches:
        inputs = batch.detach().requires_grad_()
        found += torch.autograd.grad(module(inputs)[:, TARGET].sum(), inputs)
    return found


def captum_of(module: torch.nn.Module, encoded: torch.Tensor, steps: int, batch: int) -> dict[str, Variant]:
    """Nothing when it is not installed."""
    if not find_spec("captum"):
        return {}
    from captum.attr import IntegratedGradients

    method = IntegratedGradients(copy.deepcopy(module))

    @torch.enable_grad()
    def run(at_once: int | None) -> torch.Tensor:
        found = method.attribute(encoded, 0, TARGET, n_steps=steps, internal_batch_size=at_once)
        assert isinstance(found, torch.Tensor)
        return found.detach()

    return {"captum": lambda: run(None), f"captum, {batch} at a time": lambda: run(batch)}


def main() -> None:
    given = options()
    steps = 4 if given.quick else 32
    batch = next(option.default for option in find("integrated_gradients").options if option.name == "batch")
    network = nm.load("squeezenet")
    picture = np.random.default_rng(0).random(network.shape, dtype=np.float32)
    encoded = network.encode(picture)
    places, weights = np.polynomial.legendre.leggauss(steps)
    way = torch.as_tensor((1 + places) / 2, dtype=encoded.dtype).view(-1, 1, 1, 1)
    batches = list((way * encoded).split(batch))
    frozen = copy.deepcopy(network.module).requires_grad_(False)

    def ours() -> Any:
        return nm.look("integrated_gradients", network, picture, target=TARGET, steps=steps, evidence=False)

    peers = captum_of(network.module, encoded, steps, batch)

    def differences() -> dict[str, Any]:
        found = ours().numbers["attributions"]
        share = torch.as_tensor(weights / 2, dtype=encoded.dtype).view(-1, 1, 1, 1)
        right = ((torch.cat(slopes_of(frozen, batches)) * share).sum(0) * encoded[0]).numpy()
        others = {"ours": found, **{name: variant()[0].numpy() for name, variant in peers.items()}}
        return {
            "off by": {name: float(np.abs(other - right).max() / np.abs(right).max()) for name, other in others.items()}
        }

    compare(
        f"integrated gradients of a SqueezeNet's picture, {steps} steps",
        given,
        {
            "floor": lambda: slopes_of(frozen, batches),
            "ours": ours,
            **peers,
            "of ours: the question": lambda: question(network, picture, TARGET),
            "of ours: fingerprints": lambda: (weights_hash(network), array_hash(picture)),
        },
        {"time": ("floor", 1.05)},
        check=differences,
    )


if __name__ == "__main__":
    main()
