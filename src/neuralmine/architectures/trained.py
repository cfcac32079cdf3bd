"""A piece trained here, under a linear readout, on the bundled digits: weights that were learned, in a second or two."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import datasets, optimizers, progress
from ..training import one_thread
from . import build

TRAIN = 1400  # digits trained on; the other 397 are held out
EPOCHS, BATCH, LR = 12, 64, 0.01


@dataclass(frozen=True, slots=True)
class Trained:
    """A piece's learned weights, how many of the held-out digits its readout gets right, and its maps that are never
    above 0 on any digit: the ReLU behind them lets nothing through."""

    weights: Mapping[str, np.ndarray]
    accuracy: float
    dead: tuple[int, ...]


def trained(description: Mapping[str, Any]) -> Trained:
    """The piece of this description after training: its output, through a ReLU where it convolves, read by one linear
    layer that names the digit. Kept, so that the same description is trained once.

    >>> found = trained({"name": "convolution", "inputs": 1, "outputs": 4, "seed": 0})
    >>> found.weights["convolution.weight"].shape, found.accuracy > 0.8
    ((4, 1, 3, 3), True)
    """
    return _trained(json.dumps(dict(description), sort_keys=True))


@functools.lru_cache(maxsize=16)
def _trained(key: str) -> Trained:
    import torch
    from torch import nn

    description = json.loads(key)
    data = datasets.load("digits")
    convolves = description["name"] == "convolution"
    images = torch.tensor(data.images[:, None] if convolves else data.images, dtype=torch.float64)
    labels = torch.tensor(np.asarray(data.labels))
    piece = build(description)
    generator = torch.Generator().manual_seed(description.get("seed", 0))
    with one_thread(), torch.enable_grad():
        readout = nn.Linear(piece(images[:1]).numel(), 10, dtype=torch.float64)
        with torch.no_grad():
            readout.weight.normal_(0, readout.in_features**-0.5, generator=generator)
            readout.bias.zero_()
        whole = nn.Sequential(piece, nn.ReLU() if convolves else nn.Identity(), nn.Flatten(), readout)
        optimizer = optimizers.make("adam", whole.parameters(), LR)
        for _ in progress.over(range(EPOCHS), "epoch"):
            for some in torch.randperm(TRAIN, generator=generator).split(BATCH):
                optimizer.zero_grad()
                nn.functional.cross_entropy(whole(images[some]), labels[some]).backward()
                optimizer.step()
        with torch.no_grad():
            right = whole(images[TRAIN:]).argmax(1) == labels[TRAIN:]
            made = piece(images)
    dead = np.flatnonzero((made <= 0).all(0).flatten(1).all(1).numpy()) if convolves else ()
    weights = {name: value.detach().numpy().copy() for name, value in piece.state_dict().items()}
    return Trained(weights, float(right.double().mean()), tuple(int(at) for at in dead))
