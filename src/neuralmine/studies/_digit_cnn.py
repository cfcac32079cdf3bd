"""The small convolutional nets that several studies look at: trained here, once a process, from stated random starts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from functools import cache

import numpy as np

from ..codes import codes_by_layer, dissimilarity, of_classes, probe, rank_correlation
from ..datasets import load
from ..networks.torch_module import network_of
from ..progress import over
from ..training import train
from ..types import Dataset, Network

LAYERS = ("maps1", "maps2", "maps3", "hidden", "logits")
ROWS = ("pixels", *LAYERS)
PICTURES = 300
TRAINING = {"optimizer": "adam", "lr": 0.01, "batch": 32, "schedule": "cosine"}  # chosen by the training loss


@cache
def parts() -> tuple[Dataset, Dataset]:
    """The bundled digits, in a training and a test part."""
    return load("digits").split(0.25, 0)


def untrained(seed: int) -> Network:
    """Three layers of maps, one of 32 units and ten outputs for pictures of 8 × 8, as they are before training."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    blocks = [
        ("maps1", nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU())),
        ("maps2", nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))),
        ("maps3", nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))),
        ("hidden", nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU())),
        ("logits", nn.Linear(32, 10)),
    ]
    return network_of(nn.Sequential(OrderedDict(blocks)), shape=(1, 8, 8), name=f"digit CNN, start {seed}")


def taught(data: Dataset, seed: int, epochs: int) -> Network:
    """Such a net, trained on these pictures."""
    network = untrained(seed)
    for _ in train(network, data, seed=seed, epochs=epochs, **TRAINING):
        pass
    return network


@cache
def trained(seed: int) -> Network:
    """Such a net, trained on the training part of the digits for six epochs."""
    return taught(parts()[0], seed, 6)


def codes(network: Network, images: np.ndarray, names: tuple[str, ...] = LAYERS) -> dict[str, np.ndarray]:
    """What these layers make of the pictures, pictures × numbers."""
    return dict(codes_by_layer(network, images, names))


@cache
def measured(seed: int, starts: int) -> Mapping[str, np.ndarray]:
    """For pixels and every layer, starts × rows, of trained nets and the same nets untrained, on unseen pictures.

    "class" and "pixels" are rank correlations of the dissimilarities with those of the classes and of the pixels;
    "probe" is how often a linear probe that learned from half of the pictures is right on the others.
    """
    test = parts()[1]
    generator = np.random.default_rng(seed)
    few = generator.permutation(len(test))[:PICTURES]
    known, asked = np.array_split(generator.permutation(len(test)), 2)
    wanted = of_classes(test.labels[few])
    found: dict[str, list[list[float]]] = {}
    for run in over(range(starts), "start"):
        for kind, network in (("trained", trained(seed + run)), ("untrained", untrained(seed + run))):
            rows = [test.images.reshape(len(test), -1), *codes(network, test.images).values()]
            pairs = [dissimilarity(one[few]) for one in rows]
            for name, values in (
                ("class", [rank_correlation(one, wanted) for one in pairs]),
                ("pixels", [rank_correlation(one, pairs[0]) for one in pairs]),
                (
                    "probe",
                    [
                        float((probe(one[known], test.labels[known], one[asked]) == test.labels[asked]).mean())
                        for one in rows
                    ],
                ),
            ):
                found.setdefault(f"{name}_{kind}", []).append(values)
    return {name: np.array(values) for name, values in found.items()}
