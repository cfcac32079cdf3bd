"""Occlusion of a SqueezeNet's picture by 49 squares: ours, captum by default and with 32 squares a call.

The floor runs the same batches, made beforehand, and nothing else. Target: time ≤ 1.05 of it by default, although
ours also asks what the network says of the whole picture, watches a layer and makes a finding; what of that can be
had alone is timed too. `--quick` runs a small version.
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
from neuralmine.lenses.occlusion import places

TARGET, WINDOW, STRIDE = 281, 35, 32  # 7 × 7 squares on 227 pixels, none cut off at the edge


def covered(encoded: torch.Tensor, window: int, stride: int) -> list[torch.Tensor]:
    """The pictures that go through the network, in ours' own batches."""
    batch = next(option.default for option in find("occlusion").options if option.name == "batch")
    every = []
    for top in places(encoded.shape[-2], window, stride):
        for left in places(encoded.shape[-1], window, stride):
            one = encoded.clone()
            one[..., top : top + window, left : left + window] = 0
            every.append(one)
    return list(torch.cat(every).split(batch))


def captum_of(module: torch.nn.Module, encoded: torch.Tensor, window: int, stride: int) -> dict[str, Variant]:
    """Nothing when it is not installed."""
    if not find_spec("captum"):
        return {}
    from captum.attr import Occlusion

    method = Occlusion(copy.deepcopy(module))

    def run(at_once: int) -> torch.Tensor:
        return method.attribute(
            encoded, (3, window, window), (3, stride, stride), 0, TARGET, perturbations_per_eval=at_once
        )

    return {"captum": lambda: run(1), "captum, 32 at a time": lambda: run(32)}


def main() -> None:
    given = options()
    window, stride = (114, 113) if given.quick else (WINDOW, STRIDE)
    network = nm.load("squeezenet")
    picture = np.random.default_rng(0).random(network.shape, dtype=np.float32)
    encoded = network.encode(picture)
    batches = covered(encoded, window, stride)

    def ours() -> Any:
        return nm.look(
            "occlusion", network, picture, target=TARGET, window=window, stride=stride, evidence=False
        )  # fmt: skip

    peers = captum_of(network.module, encoded, window, stride)

    def differences() -> dict[str, Any]:
        found = ours().numbers
        with torch.no_grad():
            right = torch.cat([network.module(batch) for batch in batches])[:, TARGET].numpy()
        off = {
            "ours' scores from the floor's": float(np.abs(found["score"].ravel() - right).max() / np.abs(right).max())
        }
        if "captum" in peers:
            other = peers["captum, 32 at a time"]()[0, 0].numpy()
            off["ours' map from captum's"] = float(np.abs(found["map"] - other).max() / np.abs(other).max())
        return {"off by": off}

    compare(
        f"occlusion of a SqueezeNet's picture, {sum(map(len, batches))} squares",
        given,
        {
            "floor": lambda: [network.module(batch) for batch in batches],
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
