from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..architectures import build
from ..datasets import load
from ..networks.catalogue import load_preset
from ..networks.torch_module import network_of
from ..progress import over
from ..training import train
from ..types import Check, Dataset, Finding, Verdict
from ..views import Lines, Table

SHARES = (0.1, 0.5, 0.9, 0.99, 1.01, 1.1)  # of 2/L
STARTS, STEPS, EPOCHS = 4, 400, 12


def lowering_its_loss(*, seed: int = 0) -> Verdict:
    """Does every step of gradient descent lower the loss, and how large may a step be?

    A net without a hidden layer and with linear outputs has a convex squared loss, whose curvature is known: L, the
    largest eigenvalue of its Hessian 2XᵀX/n. From four random starts on 600 digits it descends with learning rates
    below and above 2/L. Beside it the essay's 64-16-10, which is not convex, as it is trained by batches.
    """
    data = load("digits").take(np.random.default_rng(seed).permutation(1797)[:600])
    limit = 2 / curvature(data)
    losses = np.full((len(SHARES), STARTS, STEPS + 1), np.nan)
    for row, share in over(list(enumerate(SHARES)), "learning rate"):
        for run in range(STARTS):
            module = build({"sizes": [64, 10], "output": "linear", "seed": seed + run})
            network = network_of(module, shape=(8, 8), loss="squared")
            path = descent(network, data, share * limit)
            losses[row, run, : len(path)] = path
    real = np.array([_real(seed + run) for run in range(STARTS)])
    return judged({"losses": losses, "limit": np.array(limit), "real": real})


def judged(seen: Mapping[str, np.ndarray]) -> Verdict:
    """The verdict on the losses (rates × starts × steps, nan after an end) and those of real nets by epoch."""
    losses, limit, real = seen["losses"], float(seen["limit"]), seen["real"]
    under = np.array(SHARES) < 1
    # A rise within rounding is none; a run that stopped early exploded.
    rise = np.array([[_largest_rise(path) for path in runs] for runs in losses])
    ends = np.array([[path[np.isfinite(path)][-1] / path[0] for path in runs] for runs in losses])
    monotone, grows = bool((rise[under] <= 1e-12).all()), bool((ends[~under] > 1).all())
    falls = float((np.diff(real, axis=1) < 0).mean())
    learns = bool((real[:, -1] < real[:, 0]).all())
    shown = min(60, losses.shape[2])
    finding = Finding(
        {**seen, "rise": rise, "ends": ends},
        (
            Lines("the loss of one start by step, in powers of ten", np.arange(shown),
                  {f"{share:g} × 2/L": np.log10(_carried(losses[row, 0, :shown])) for row, share in enumerate(SHARES)}, "step", "log₁₀ of the loss"),
            Table("learning rates below and above 2/L", ("rate × L/2", "learning rate", "steps that rose, share", "last loss ÷ first"),
                  tuple((share, share * limit, float(np.nanmean(np.diff(losses[row], axis=1) > 1e-12)), float(ends[row].mean())) for row, share in enumerate(SHARES))),
            Lines("64-16-10, trained by batches", np.arange(real.shape[1]), {f"start {i}": path for i, path in enumerate(real)}, "epoch", "loss"),
        ),
        (
            Check("below 2/L every step lowers the loss", float(rise[under].max()), 0.0, None, monotone,
                  f"The largest rise of the loss in one step, as a share of it: {int(under.sum())} rates, {losses.shape[1]} starts, {losses.shape[2] - 1} steps each."),
            Check("above 2/L it grows", float(ends[~under].min()), 1.0, None, grows, "The smallest of last loss ÷ first; above 1 in every start, or the limit is not where it should be."),
            Check("the essay's net: epochs that lower the loss", falls, 0.5, None, learns, f"Share of {real.shape[1] - 1} epochs, {len(real)} starts; by batches a step may rise, and nothing is convex. It fails when a start ends no lower than it began."),
        ),
        f"The limit 2/L is a learning rate of {limit:.4f}: below it no step rises, above it the loss grows.",
    )  # fmt: skip
    above = SHARES[int(np.flatnonzero(~under)[0])]
    return Verdict(
        "Gradient descent: updates weights in the direction that reduces error. The model improves by gradually lowering its loss.",
        "Thread 3 — Deep Learning: How Neural Networks Actually Think (2025)",
        "On a convex loss each step lowers it when the learning rate is below 2/L (L: the largest curvature), and a larger one makes it grow; the essay's net ends lower than it began.",
        f"below 2/L = {limit:.4f}: {'no step rose' if monotone else 'some steps rose'} in {int(under.sum()) * losses.shape[1]} runs; 64-16-10: the loss fell in {100 * falls:.0f} % of epochs, "
        f"from {real[:, 0].mean():.2f} to {real[:, -1].mean():.3f} (n = {len(real)})",
        f"at {above:g} × 2/L the loss grows {ends[~under][0].min():,.0f}-fold or more: the direction alone is not enough",
        "holds" if monotone and grows and learns else "partly" if learns else "not here",
        finding,
    )


def curvature(data: Dataset) -> float:
    """L: the largest eigenvalue of 2XᵀX/n, X being the pixels and a 1 for the bias."""
    rows = np.column_stack([data.images.reshape(len(data), -1).astype(np.float64), np.ones(len(data))])
    return float(np.linalg.eigvalsh(2 * rows.T @ rows / len(rows))[-1])


def descent(network, data: Dataset, rate: float) -> list[float]:
    """The loss before each step of gradient descent on all pictures, and after the last; it ends where it explodes."""
    steps = train(network, data, optimizer="gradient_descent", lr=rate, epochs=STEPS)
    return [step.metrics["loss"] for step in steps if not any(trouble.stops for trouble in step.trouble)]


def _real(seed: int) -> list[float]:
    network = load_preset("64-16-10", trained=False, seed=seed)
    steps = train(
        network, load("digits").split(0.25, 0)[0], optimizer="sgd", lr=0.5, batch=16, epochs=EPOCHS, seed=seed
    )
    return [step.metrics["loss"] for step in steps]


def _largest_rise(path: np.ndarray) -> float:
    path = path[np.isfinite(path)]
    return float((np.diff(path) / path[:-1]).max())


def _carried(path: np.ndarray) -> np.ndarray:
    """The last loss goes on where a run has ended."""
    known = np.isfinite(path)
    return np.where(known, path, path[known][-1])
