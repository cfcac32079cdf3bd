"""One sweep over the 650 weights of 64-10 on the exact loss of 1,347 digits: ours against computing all of it anew.

Both run in turn in one process, the same number of sweeps from the same weights; prints one JSON line with the median
milliseconds of a sweep and the largest difference between the weights at the end.

    python benchmarks/one_weight_at_a_time.py [--sweeps 15] [--rate 32]
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")  # before numpy and torch load

import argparse
import json
import platform
import statistics
import time

import numpy as np
import torch

from neuralmine import datasets
from neuralmine.architectures.mlp import mlp
from neuralmine.optimizers import OneWeightAtATime

TARGET_MS, TARGET_DIFFERENCE, HALVINGS = 18.0, 1e-6, 10


class Naive:
    """The same moves, with the whole forward pass and the whole loss for every value tried."""

    def __init__(self, net: torch.nn.Module, inputs: np.ndarray, labels: np.ndarray, rate: float) -> None:
        self.weight, self.bias = (parameter.detach().numpy().copy() for parameter in net.parameters())
        self.inputs, self.ideal, self.rate = inputs, np.eye(10)[labels], rate

    def forward(self) -> tuple[np.ndarray, float]:
        activations = 1 / (1 + np.exp(-(self.inputs @ self.weight.T + self.bias)))
        return activations, float(np.square(activations - self.ideal).sum(1).mean())

    def sweep(self) -> None:
        activations, loss = self.forward()
        for given in range(65):
            ink = self.inputs[:, given] if given < 64 else 1.0
            column = self.weight[:, given] if given < 64 else self.bias
            for unit in range(10):
                a = activations[:, unit]
                slope = (2 * (a - self.ideal[:, unit]) * a * (1 - a) * ink).mean()
                before, change = column[unit], -self.rate * slope
                for _ in range(HALVINGS + 1 if slope else 0):
                    column[unit] = before + change
                    tried, lower = self.forward()
                    if lower < loss:
                        activations, loss = tried, lower
                        break
                    change /= 2
                else:
                    column[unit] = before


def timed(work) -> float:
    start = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=15)
    parser.add_argument("--rate", type=float, default=32.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    train, _ = datasets.load("digits").split(test=0.25, seed=0)
    images = train.images.reshape(len(train), -1).astype(np.float64)
    net = mlp([64, 10], seed=0)
    naive = Naive(net, images, train.labels, options.rate)
    ours = OneWeightAtATime(
        net, torch.from_numpy(images), torch.from_numpy(train.labels), rate=options.rate, halvings=HALVINGS
    )
    times = [(timed(ours.sweep), timed(naive.sweep)) for _ in range(options.sweeps)]
    fast, slow = (statistics.median(column) for column in zip(*times, strict=True))
    pairs = zip(net.parameters(), (naive.weight, naive.bias), strict=True)
    difference = max(np.abs(parameter.detach().numpy() - same).max() for parameter, same in pairs)
    print(
        json.dumps(
            {
                "benchmark": "one_weight_at_a_time",
                "images": len(train),
                "weights": ours.count,
                "sweeps": options.sweeps,
                "rate": options.rate,
                "ours_ms_per_sweep": round(fast, 2),
                "naive_ms_per_sweep": round(slow, 2),
                "times_faster": round(slow / fast, 1),
                "max_weight_difference": float(difference),
                "target_ms": TARGET_MS,
                "met": bool(fast <= TARGET_MS and difference <= TARGET_DIFFERENCE),
                "torch": torch.__version__,
                "numpy": np.__version__,
                "machine": platform.machine(),
            }
        )
    )


if __name__ == "__main__":
    main()
