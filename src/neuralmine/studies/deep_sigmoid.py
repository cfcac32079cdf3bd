from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..datasets import load
from ..losses import mean_loss
from ..networks.torch_module import network_of
from ..progress import over
from ..training import one_thread, train
from ..types import Check, Dataset, Finding, Network, Verdict
from ..views import Bars, Lines

if TYPE_CHECKING:
    import torch

DEPTH, WIDTH, SEEDS = 100, 16, 3
EPOCHS, BATCH = 3, 64
# The residual net's rate was not tuned for each seed; the plain net gets several ways, and its best one counts.
RESIDUAL = ("adam", 0.003)
PLAIN = (("adam", 0.003), ("sgd", 1.0))


def deep_sigmoid(*, seed: int = 0) -> Verdict:
    """Do hundreds of hidden layers of the essay's own sigmoid neurons still learn, and do they with residual connections?

    A net of 100 weighted layers, 16 sigmoid neurons each, on the 8 × 8 digits; three random starts. The plain one is
    trained by Adam and by plain SGD at a high rate, and the better of the two counts. The residual one has the same
    layers and the same starts, but each of its hidden layers adds what it finds to what it was given
    (x + sigmoid − ½). The nulls are the share of the most frequent class, and the residual net trained on shuffled labels.
    """
    train_part, test_part = load("digits").split(0.25, 0)
    generator = np.random.default_rng(seed)
    mixed = replace(train_part, labels=generator.permutation(train_part.labels), name="digits, labels shuffled")
    chance = float(np.bincount(test_part.labels).max() / len(test_part))
    plain, residual, shuffled = np.zeros((SEEDS, len(PLAIN))), np.zeros(SEEDS), np.zeros(SEEDS)
    ratios, reach = np.zeros((2, SEEDS)), np.zeros((2, DEPTH))
    with one_thread():
        for run in over(range(SEEDS), "start"):
            for row, kind in enumerate((False, True)):
                gradients = _gradients(_network(kind, seed + run), train_part)
                ratios[row, run] = gradients[0] / gradients[-1]
                reach[row] += np.log10(np.maximum(gradients, 5e-324)) / SEEDS
            for way, (optimizer, rate) in over(list(enumerate(PLAIN)), "way to train", until=0.5):
                plain[run, way] = _learned(
                    _network(False, seed + run), train_part, test_part, optimizer, rate, seed + run
                )
            residual[run] = _learned(_network(True, seed + run), train_part, test_part, *RESIDUAL, seed + run)
            shuffled[run] = _learned(_network(True, seed + run), mixed, test_part, *RESIDUAL, seed + run)
    best = plain.max(1)
    stuck, learns = bool(best.max() <= 2 * chance), bool(residual.min() > max(2 * chance, shuffled.max()))
    finding = Finding(
        {
            "plain": plain,
            "residual": residual,
            "shuffled": shuffled,
            "gradient_ratio": ratios,
            "gradient": reach,
            "chance": np.array(chance),
        },
        (
            Bars(
                f"right on {len(test_part)} test digits, mean of {SEEDS} starts",
                ("plain sigmoid layers", "residual", "residual, labels shuffled", "most frequent class"),
                np.array([best.mean(), residual.mean(), shuffled.mean(), chance]),
                1,
                "share",
                1.0,
            ),
            Lines(
                "the size of the gradient by layer before training, in powers of ten",
                np.arange(1, DEPTH + 1),
                {"plain": reach[0], "residual": reach[1]},
                "layer",
                "log₁₀ of the root mean square",
            ),
        ),
        (
            Check("the plain net's accuracy", float(best.mean()), chance, (float(best.min()), float(best.max())), not stuck,
                  f"The better of {len(PLAIN)} ways to train, {SEEDS} starts and their range; it fails when none is above twice the null, the share of the most frequent class."),
            Check("the residual net's accuracy", float(residual.mean()), float(shuffled.mean()), (float(residual.min()), float(residual.max())), learns,
                  f"{SEEDS} starts and their range; the null is the same net trained on shuffled labels."),
            Check("the plain net's gradient at the first layer as a share of the last's", float(np.median(ratios[0])), float(np.median(ratios[1])),
                  (float(ratios[0].min()), float(ratios[0].max())), bool(ratios[0].max() > 1e-3),
                  "Before training; it fails when less than a thousandth arrives. What it is compared with is the residual net."),
        ),
        f"100 plain sigmoid layers: {100 * best.mean():.0f} % right; with residual connections {100 * residual.mean():.0f} %.",
    )  # fmt: skip
    return Verdict(
        "Two, three, or hundreds of hidden layers can be added to models for different results.",
        "Behind the Eyeballs of AI (2020)",
        f"A net of {DEPTH} of the essay's sigmoid layers is right on more than twice as many test digits as always saying the most frequent one; partly, when only residual connections make it so.",
        f"{100 * best.mean():.1f} % right (n = {SEEDS}, highest {100 * best.max():.1f} %): the first layer's gradient is {np.median(ratios[0]):.0e} "
        f"of the last's; with residual connections {100 * residual.mean():.1f} ± {100 * residual.std(ddof=1):.1f} %",
        f"{100 * chance:.1f} % for the most frequent class; residual with shuffled labels {100 * shuffled.mean():.1f} %",
        "holds" if not stuck else "partly" if learns else "not here",
        finding,
    )


def _network(residual: bool, seed: int) -> Network:
    import torch
    from torch import nn

    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sum, self.activation = nn.Linear(WIDTH, WIDTH), nn.Sigmoid()

        def forward(self, given: torch.Tensor) -> torch.Tensor:
            made = self.activation(self.sum(given))
            return given + made - 0.5 if residual else made

    torch.manual_seed(seed)
    first = (nn.Flatten(), nn.Linear(64, WIDTH), nn.Sigmoid())
    module = nn.Sequential(*first, *[Hidden() for _ in range(DEPTH - 2)], nn.Linear(WIDTH, 10))
    return network_of(module.double(), shape=(8, 8), name="residual" if residual else "plain")


def _gradients(network: Network, data: Dataset) -> np.ndarray:
    """The root mean square of the loss's gradient by each layer's weights, on the first 128 images."""
    import torch

    module, labels = network.module, torch.as_tensor(np.asarray(data.labels[:128], dtype=np.int64))
    mean_loss(network.loss, module(network.encode(data.images[:128])), labels).backward()
    found = [part.weight.grad for part in module.modules() if isinstance(part, torch.nn.Linear)]
    sizes = [float((g / g.abs().max()).square().mean().sqrt() * g.abs().max()) for g in found if g is not None]
    module.zero_grad(set_to_none=True)
    return np.array(sizes)


def _learned(network: Network, data: Dataset, test: Dataset, optimizer: str, rate: float, seed: int) -> float:
    """The share of the test images that is right after training."""
    accuracy = 0.0
    for step in train(network, data, test=test, optimizer=optimizer, lr=rate, epochs=EPOCHS, batch=BATCH, seed=seed):
        accuracy = step.metrics["test_accuracy"]
    return accuracy
