from __future__ import annotations

import numpy as np

from ..architectures import build
from ..datasets import load
from ..lens import look
from ..losses import chosen
from ..networks.torch_module import network_of
from ..progress import over
from ..training import one_thread, train
from ..types import Check, Dataset, Finding, Network, Verdict
from ..views import Bars, Table

SEEDS, EPOCHS, LINES, BOUND = 8, 60, 10_000, 0.75
NETS = (
    ("no hidden layer", "identity", ()),
    ("1 layer of 4, no activation", "identity", (4,)),
    ("2 layers of 4, no activation", "identity", (4, 4)),
    ("4 layers of 4, no activation", "identity", (4, 4, 4, 4)),
    ("2 tanh neurons", "tanh", (2,)),
    ("3 tanh neurons", "tanh", (3,)),
    ("4 tanh neurons", "tanh", (4,)),
)


def xor(*, seed: int = 0) -> Verdict:
    """Is it the activation that lets a net learn what no line can tell apart?

    The toy problem xor (200 points in fours, 75 % of them for training), nets of several depths without activations,
    and nets with one hidden layer of tanh neurons. All are trained in the same way (Adam, rate 0.1, 60 epochs, batches
    of 50) from eight starts, and the best of the eight counts, on both sides. No net without activations can be right
    on more than 75 %: a half-plane and the rest are convex, so if all four corners of a square were right, its middle,
    which lies between both pairs of like corners, would be on both sides of the line.
    """
    data = load("xor", seed=seed)
    part, held_out = data.split()
    accuracy, gap = np.zeros((len(NETS), SEEDS)), np.zeros((len(NETS), SEEDS))
    with one_thread():
        for row, (_, activation, hidden) in over(list(enumerate(NETS)), "net"):
            for run in range(SEEDS):
                network = _network(activation, hidden, data, seed + run)
                before = look("linear_collapse", network, held_out).numbers["gap"]
                accuracy[row, run] = _learned(network, part, data, seed + run)
                gap[row, run] = max(before, look("linear_collapse", network, held_out).numbers["gap"])
    linear = np.array([activation == "identity" for _, activation, _ in NETS])
    lines = _best_line(data, seed)
    straight, bent = accuracy[linear], accuracy[~linear]
    worst = float(gap[linear].max())
    flat, learns, one = bool(straight.max() <= BOUND), bool((bent.max(1) == 1).all()), worst < 1e-6
    rows = tuple(
        (name, float(a.max()), float(a.mean()), float((a == 1).mean()), float(g.max()))
        for (name, _, _), a, g in zip(NETS, accuracy, gap, strict=True)
    )
    finding = Finding(
        {"accuracy": accuracy, "gap": gap, "bound": np.array(BOUND), "best_line": np.array(lines)},
        (
            Bars(f"right on {len(data)} points, best of {SEEDS} starts", tuple(name for name, _, _ in NETS), accuracy.max(1), len(NETS) - 1, "share", 1.0),
            Table("eight starts each", ("net", "best", "mean", "share at 100 %", "largest gap to one matrix"), rows),
        ),
        (
            Check("the best without activations", float(straight.max()), BOUND, None, flat,
                  f"Best of {straight.size} runs; beside it the bound for any line, which holds for every noise."),
            Check(f"the best of {LINES:,} random lines", lines, BOUND, None, lines <= BOUND,
                  "Each drawn through a random point, counted with the better side for each class: how near the bound one can come."),
            Check("the worst net of tanh neurons, at its best start", float(bent.max(1).min()), float(straight.max()), None, learns,
                  f"Best of {SEEDS} starts for each of 2, 3 and 4 neurons; beside it the best without activations. Holds at 100 %."),
            Check("the layers without activations are one matrix", worst, None, None, one,
                  "The largest ‖W − measured‖ of those nets, before and after training."),
        ),
        f"Without activations at most {100 * straight.max():.1f} % whatever the depth; two to four tanh neurons reach {100 * bent.max(1).min():.1f} %.",
    )  # fmt: skip
    return Verdict(
        "Nonlinearity is what makes the network capable of learning complex patterns.",
        "Thread 3: Deep Learning (2025)",
        "Without activations no depth is right on more than 75 % of xor; with a few tanh neurons all of it is.",
        f"best of {SEEDS} starts: {100 * straight.max():.1f} % without activations (0, 1, 2 and 4 hidden layers), "
        f"{', '.join(f'{100 * best:.1f}' for best in bent.max(1))} % with 2, 3 and 4 tanh neurons; the layers without activations are one "
        f"matrix to {worst:.0e}",
        f"75 % is the most for any line, at any noise (the best of {LINES:,} random ones: {100 * lines:.1f} %); 50 % for always saying one class",
        "holds" if flat and learns and one else "partly" if flat and one and bent.max() > BOUND else "not here",
        finding,
    )


def _network(activation: str, hidden: tuple[int, ...], data: Dataset, seed: int) -> Network:
    sizes = [2, *hidden, 1]
    module = build({"name": "mlp", "sizes": sizes, "activation": activation, "seed": seed})
    return network_of(module, shape=(2,), labels=data.classes, loss="squared")


def _learned(network: Network, part: Dataset, data: Dataset, seed: int) -> float:
    """The share of all points that is right after training on a part of them."""
    for _ in train(network, part, optimizer="adam", lr=0.1, epochs=EPOCHS, batch=50, seed=seed):
        pass
    said = chosen(network.module(network.encode(data.images))).numpy()
    return float((said == data.labels).mean())


def _best_line(data: Dataset, seed: int) -> float:
    generator = np.random.default_rng([seed, 1])
    normals = generator.standard_normal((LINES, 2))
    through = generator.uniform(data.images.min(0), data.images.max(0), (LINES, 2))
    said = normals @ data.images.T > (normals * through).sum(1, keepdims=True)
    right = (said == data.labels).mean(1)
    return float(np.maximum(right, 1 - right).max())
