"""Trains the bundled networks anew, each on the training part of split seed 0: python scripts/train_presets.py [MNIST folder]."""

import sys

import torch

import neuralmine as nm
from neuralmine.networks import catalogue
from neuralmine.networks.files import save


def main(mnist: str | None) -> None:
    torch.set_num_threads(1)
    for name, preset in catalogue.PRESETS.items():
        if not preset.training or (preset.data == "mnist" and mnist is None):
            continue
        data = nm.datasets.load(mnist if preset.data == "mnist" and mnist else preset.data)
        train, test = data.split(0.25, 0)
        network = catalogue.untrained(preset, 0, name)
        for step in nm.train(network, train, test=test, seed=0, **preset.training):
            last = step
        said = f"{data.name}, split seed 0, {len(train)} training images; test accuracy {last.metrics['test_accuracy']:.4f}"
        save(network, catalogue.WEIGHTS / f"{name}.safetensors", preset.architecture, said)
        print(name, said, flush=True)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
