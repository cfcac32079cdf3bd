from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from ..experiments import Scaling
from ..intervals import paired
from ..lens import lens
from ..types import Between, Check, Dataset, Finding, Network
from ..views import Lines, Table, number

AHEAD = (2, 10)  # how many times the largest size the curve is drawn on to


@lens()
def data_scaling(
    network: Network,
    data: Dataset,
    *,
    sizes: Annotated[int, Between(3, 30)] = 6,
    smallest: Annotated[int, Between(0, 10_000_000)] = 0,
    seeds: Annotated[int, Between(2, 100)] = 4,
    updates: Annotated[int, Between(1, 10_000_000)] = 800,
    test: Annotated[float, Between(0.01, 0.9)] = 0.25,
    optimizer: str = "adam",
    lr: Annotated[float, Between(0, 1e6)] = 0.02,
    batch: Annotated[int, Between(1, 1_000_000)] = 32,
    draws: Annotated[int, Between(20, 100_000)] = 300,
    seed: int = 0,
) -> Finding:
    """How many more examples would make how many fewer mistakes?

    The same network is started anew and trained on growing parts of the data, each holding the one before (nested) and
    the classes in their proportions (stratified), for about as many updates each, so that a small part is not also a
    short training. Accuracy is on the images that the seed's split holds out, the same for all sizes.

    The curve is error = a · n^(−b), a straight line in log error against log n, fitted to the mean error over seeds by
    least squares. A floor, error = a · n^(−b) + c with c ≥ 0, is kept when its AICc is lower by 2 or more (Hurvich and
    Tsai 1989), which few sizes seldom allow. The interval of b is a bootstrap over seeds: a seed's whole curve is
    drawn or not. What lies beyond the largest size is extrapolation, and only as good as the law.

    Numbers: "sizes"; "accuracy", "train_accuracy" and "centroid" (seeds × sizes; the last is the nearest mean image,
    which needs no network), "error" (sizes, mean over seeds), "spread" (sizes, standard deviation over seeds), "chance"
    (accuracy of always saying the commonest class). When at three sizes or more a mistake was made also "a", "b",
    "b_interval" (95 %), "c", "r2" (of log error), "aicc" (without and with c), "fitted" (sizes), "ahead" (sizes beyond,
    extrapolated), "ahead_error", "ahead_interval".

    Options:
        sizes: how many parts, geometrically spaced up to all training images.
        smallest: images in the smallest; 0 for two a class.
        seeds: how many times, each with another split, another start and other parts.
        updates: of the weights for each training, at least.
        test: share of images held out.
        optimizer: sgd, adam, or any class of torch.optim.
        lr: learning rate.
        batch: images an update.
        draws: of the bootstrap.
        seed: the first seed.

    Raises UsageError for too few images, for a network that reads texts or cannot be started anew, DataError when the
    data do not fit the network.

    Source: Hestness et al. 2017 (power laws of learning curves); Hurvich and Tsai 1989 (AICc).

    >>> import neuralmine as nm
    >>> net, data = nm.load("64-10"), nm.datasets.load("digits").take(slice(0, 300))
    >>> finding = nm.look("data_scaling", net, data, sizes=3, seeds=2, updates=40)
    >>> finding.numbers["sizes"].tolist(), finding.numbers["accuracy"].shape
    ([20, 67, 225], (2, 3))
    """
    work = Scaling.of(
        network, data, sizes, smallest, seeds, seed, test, updates, optimizer=optimizer, lr=lr, batch=batch
    )
    for _ in work.steps():
        pass
    return told(work, draws)


def told(work: Scaling, draws: int = 300) -> Finding:
    """The finding of an experiment that has run to its end."""
    sizes, mean = work.sizes.astype(float), 1 - work.accuracy.mean(0)
    numbers: dict[str, np.ndarray] = {
        "sizes": work.sizes,
        "accuracy": work.accuracy,
        "train_accuracy": work.train_accuracy,
        "centroid": work.centroid,
        "error": mean,
        "spread": work.accuracy.std(0, ddof=1),
        "chance": np.array(work.chance),
    }
    series = {
        "error": mean,
        "nearest mean image": 1 - work.centroid.mean(0),
        "chance": np.full(len(sizes), 1 - work.chance),
    }
    least = 0.25 / (work.test_images * work.seeds)  # no mistake at all has no logarithm: drawn below any that was made
    law, said, checks = None, "Too few sizes with a mistake: there is no curve to fit.", []
    if (mean > 0).sum() >= 3:
        law = power_law(sizes, mean)
        ahead = sizes[-1] * np.array(AHEAD, dtype=float)
        slopes, beyond = _bootstrap(sizes, 1 - work.accuracy, law, ahead, draws, work.seed)
        low, high = float(np.quantile(slopes, 0.025)), float(np.quantile(slopes, 0.975))
        numbers |= {
            "a": np.array(law.a), "b": np.array(law.b), "b_interval": np.array([low, high]), "c": np.array(law.c),
            "r2": np.array(law.r2), "aicc": np.array(law.aicc), "fitted": law.at(sizes), "ahead": ahead,
            "ahead_error": law.at(ahead), "ahead_interval": np.quantile(beyond, [0.025, 0.975], axis=0).T,
        }  # fmt: skip
        series["power law"] = law.at(sizes)
        floor = f" + {number(law.c)}" if law.c else ""
        said = (
            f"Error = {number(law.a)} · n^(−{number(law.b)}){floor}, slope {number(-law.b)} ({number(-high)} to "
            f"{number(-low)}), R² {law.r2:.3f}: twice the images make {100 * (1 - law.at(ahead[:1])[0] / law.at(sizes[-1:])[0]):.0f} % fewer mistakes. "
            f"Extrapolated to {ahead[-1]:.0f} images: {100 * law.at(ahead)[-1]:.2g} % wrong, if the law holds."
        )
        checks += [
            Check("more examples, fewer mistakes", law.b, 0.0, (low, high), bool(low > 0),
                  f"The exponent b; 0 is no gain. 95 % interval by {draws} bootstraps over {work.seeds} seeds: with few seeds it is too narrow."),
            Check("the law describes the points", law.r2, None, None, None,
                  f"R² of log error. AICc {law.aicc[0]:.1f} without a floor, {law.aicc[1]:.1f} with: the floor is {'kept' if law.c else 'not supported'}."),
        ]  # fmt: skip
    gain, interval, p = paired(work.accuracy[:, -1] - work.centroid[:, -1], work.overlap)
    checks.append(
        Check(
            "better than the nearest mean image, with all images",
            float(work.accuracy[:, -1].mean()),
            float(work.centroid[:, -1].mean()),
            None,
            bool(gain > 0 and p < 0.05) if p < 0.05 else None,
            f"Accuracy; the null needs no network. Paired difference {number(gain)} ({number(interval[0])} to {number(interval[1])}), p {p:.2g}.",
        )
    )
    learnt = float(work.train_accuracy[:, -1].mean())
    slow = (
        ""
        if learnt >= 0.9
        else f" With all images it gets only {100 * learnt:.0f} % of them right: too few updates, so the curve is bent by that."
    )
    rows = tuple(
        (int(n), float(mean[i]), float(numbers["spread"][i]), float(work.train_accuracy[:, i].mean()),
         float(1 - work.centroid[:, i].mean()), None if law is None else float(law.at(sizes)[i]))
        for i, n in enumerate(work.sizes)
    )  # fmt: skip
    beyond_rows = () if law is None else tuple(
        (f"{n:.0f} (extrapolated)", None, None, None, None, float(law.at(np.array([n]))[0])) for n in ahead
    )  # fmt: skip
    return Finding(
        numbers,
        (
            Lines(
                "mistakes by number of examples, both scales logarithmic",
                sizes,
                {name: np.maximum(values, least) for name, values in series.items()},
                "training images",
                "share that is wrong",
                log=True,
            ),
            Table(
                "the curve, point by point",
                ("images", "share wrong", "sd over seeds", "right in training", "nearest mean image", "power law"),
                rows + beyond_rows,
            ),
        ),
        tuple(checks),
        summary=f"{work.seeds} seeds, {work.sizes[0]} to {work.sizes[-1]} training images, judged on {work.test_images}: "
        f"{100 * mean[0]:.1f} % wrong with the fewest, {100 * mean[-1]:.1f} % with all. {said}{slow} {work.data.note}".strip(),
        provenance={"recipe": dict(work.recipe), "updates": work.updates, "test_images": work.test_images, "broken": dict(work.broken)},
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """error = a · n^(−b) + c; `aicc` without and with c, `r2` of log error."""

    a: float
    b: float
    c: float
    r2: float
    aicc: tuple[float, float]

    def at(self, sizes: np.ndarray) -> np.ndarray:
        return self.a * sizes**-self.b + self.c


def power_law(sizes: np.ndarray, errors: np.ndarray) -> PowerLaw:
    """The law through points of which at least three are above 0; the others have no logarithm and are left out.

    >>> law = power_law(np.array([10.0, 100.0, 1000.0]), np.array([0.5, 0.05, 0.005]))
    >>> round(law.a, 6), round(law.b, 6), law.c
    (5.0, 1.0, 0.0)
    """
    held = errors > 0
    x, y = np.log(sizes[held]), np.log(errors[held])
    b, a = np.polyfit(x, y, 1)
    plain = PowerLaw(float(np.exp(a)), float(-b), 0.0, 0.0, (0.0, 0.0))
    floored = _with_floor(plain, sizes[held], y)
    scores = [_aicc(np.log(law.at(sizes[held])) - y, terms) for law, terms in ((plain, 3), (floored, 4))]
    best = floored if scores[1] < scores[0] - 2 else plain
    rest, all_ = ((np.log(best.at(sizes[held])) - y) ** 2).sum(), ((y - y.mean()) ** 2).sum()
    return PowerLaw(
        best.a, best.b, best.c, float(1 - rest / all_) if all_ > 0 else 1.0, (float(scores[0]), float(scores[1]))
    )


def _with_floor(plain: PowerLaw, sizes: np.ndarray, logs: np.ndarray) -> PowerLaw:
    from scipy.optimize import least_squares

    lowest = float(np.exp(logs.min()))

    def off(terms: np.ndarray) -> np.ndarray:
        return np.logaddexp(terms[0] - terms[1] * np.log(sizes), np.log(terms[2] * lowest + 1e-300)) - logs

    tries = [
        least_squares(off, (np.log(plain.a), b, share), bounds=((-np.inf, -5, 0), (np.inf, 5, 1)))
        for b, share in ((plain.b, 0.1), (2 * plain.b, 0.7))
    ]
    a, b, share = min(tries, key=lambda found: found.cost).x
    return PowerLaw(float(np.exp(a)), float(b), float(share * lowest), 0.0, (0.0, 0.0))


def _aicc(off: np.ndarray, terms: int) -> float:
    """Akaike's criterion, corrected for few points; 1e6 where there are too few to tell. `terms` counts the variance."""
    count = len(off)
    if count - terms - 1 < 1:
        return 1e6
    spread = max(float((off**2).mean()), 1e-20)  # below rounding, one fit is not better than another
    return count * float(np.log(spread)) + 2 * terms + 2 * terms * (terms + 1) / (count - terms - 1)


def _bootstrap(
    sizes: np.ndarray, errors: np.ndarray, law: PowerLaw, ahead: np.ndarray, draws: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The exponent and the extrapolated errors, with whole seeds drawn anew; the kind of law stays the one chosen."""
    generator = np.random.default_rng([seed, 3])
    slopes, beyond = [], []
    while len(slopes) < draws:
        mean = errors[generator.integers(0, len(errors), len(errors))].mean(0)
        held = mean > 0
        if held.sum() < 3:  # no line through two points
            continue
        b, a = np.polyfit(np.log(sizes[held]), np.log(mean[held]), 1)
        found = PowerLaw(float(np.exp(a)), float(-b), 0.0, 0.0, (0.0, 0.0))
        if law.c:
            found = _with_floor(found, sizes[held], np.log(mean[held]))
        slopes.append(found.b)
        beyond.append(found.at(ahead))
    return np.array(slopes), np.array(beyond)
