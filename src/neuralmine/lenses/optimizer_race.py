from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np

from ..lens import lens
from ..progress import over
from ..races import DEFAULT, GRID, GRID_OF, RULE, Plane, Race
from ..types import Between, Check, Dataset, Finding, Network
from ..views import Lines, Table, number

PLAIN = "gradient_descent"


@lens()
def optimizer_race(
    network: Network,
    data: Dataset,
    *,
    optimizers: str = DEFAULT,
    steps: Annotated[int, Between(1, 10_000)] = 60,
    batch: Annotated[int, Between(1, 1_000_000)] = 32,
    lr: str = "",
    seeds: Annotated[int, Between(1, 50)] = 1,
    limit: Annotated[int, Between(0, 10_000_000)] = 0,
    start: Literal["own", "random"] = "own",
    seed: int = 0,
) -> Finding:
    """Which optimizer comes down fastest, from the same start on the same batches, and which way does each go?

    Numbers: "loss" (optimizers × steps + 1, exact, on all images of the race, at every point), "lr" (one each),
    "images" (optimizers × steps + 1: how many each has sent forwards and backwards, the price), "paths" (optimizers ×
    steps + 1 × 2) in the one plane that keeps most of the variance of all points (PCA), "explained" (its share),
    "off" (distance of each point from the plane), "centre" (flat vector of all parameters in the module's order) and
    "axes" (2 × that), "loss_of_seeds" (seeds × optimizers × steps + 1), "plain" (seeds × steps + 1: gradient descent
    with all images at every step, the null). Paths and "loss" are of the first seed; NaN after one fell out, and the
    provenance says why. Which rates were tried, with which result, is there too.

    One step is one batch; gradient descent, L-BFGS (one iteration with line search) and one weight at a time (every
    weight once) use all images for it. The network itself keeps its weights.

    Options:
        optimizers: two to eight, with commas between: one_weight_at_a_time, gradient_descent, sgd, momentum, nesterov,
            adagrad, rmsprop, adam, adamw, lbfgs, or any class of torch.optim.
        steps: how many each may take.
        batch: images a step.
        lr: empty for the rate with the lowest loss after a quarter of the steps, each its own; or one number for all,
            or "adam=0.01,sgd=0.5".
        seeds: how many races, each with other batches (and another start, when that is random).
        limit: use at most so many images, chosen at random; 0 for all.
        start: the network's own weights, or random ones from the seed.
        seed: of the first race's batches and start.

    Raises UnknownName for an optimizer that does not exist, UsageError for too few or too many, for data smaller than
    a batch, for a network without weights to train or with a loss that is no number.

    Source: Kingma and Ba 2015 (Adam), Nocedal 1980 (L-BFGS), Sutskever 2013 (Nesterov), Duchi 2011 (AdaGrad),
    Lorch 2016 (paths by PCA).

    >>> import neuralmine as nm
    >>> net, data = nm.load("64-10", trained=False), nm.datasets.load("digits")
    >>> finding = nm.look("optimizer_race", net, data, optimizers="sgd,adam", lr="sgd=1,adam=0.01", steps=8, limit=200)
    >>> finding.numbers["loss"].shape, finding.numbers["paths"].shape
    ((2, 9), (2, 9, 2))
    """
    runs: list[_Run] = []
    swept: dict[str, dict[float, float]] = {}
    for k in over(range(seeds), "seed"):
        race = Race.of(network, data, optimizers, steps, batch, lr, limit, seed + k, start)
        if k == 0:  # the rates of the first seed are raced with all seeds
            wanted = dict.fromkeys([*race.names, PLAIN])
            rates = dict(race.lr)
            for name in over(list(wanted), "rates of optimizer", until=0.7):
                if name not in rates:
                    rates[name], swept[name] = race.swept(name)
        race.lr = rates
        runs.append(_run(race, None if k else steps))
    names, first = race.names, runs[0]
    assert first.plane is not None
    losses = np.stack([run.loss for run in runs])
    plains = np.stack([run.plain for run in runs])
    x = np.arange(steps + 1)
    rows = tuple(_row(name, i, rates, losses, first) for i, name in enumerate(names))
    spread = ("mean of seeds", "lowest seed", "highest seed") if seeds > 1 else ()
    return Finding(
        {
            "loss": losses[0],
            "lr": np.array([rates[name] for name in names]),
            "images": first.images,
            "paths": first.plane.paths,
            "explained": np.array(first.plane.explained),
            "off": first.plane.off,
            "centre": first.plane.centre,
            "axes": first.plane.axes,
            "loss_of_seeds": losses,
            "plain": plains,
        },
        (
            Lines("loss on all images, step by step", x, dict(zip(names, losses[0], strict=True)), "steps", "loss"),
            Table(
                "the race",
                ("optimizer", "rate", "loss at the start", "loss at the end", "lowest", *spread, "images", "fell out"),
                rows,
            ),
        ),
        _checks(names, losses, plains, first.plane),
        summary=_summary(names, losses, plains, rates, first, seeds),
        provenance={
            "optimizers": list(names),
            "fell_out": {f"seed {seed + k}": run.out for k, run in enumerate(runs) if run.out},
            "rates": f"Swept on seed {seed}: {RULE}." if swept else "As given.",
            "swept": {name: {f"{rate:.4g}": loss for rate, loss in tried.items() if math.isfinite(loss)} for name, tried in swept.items()},
            "at_the_edge": [name for name in swept if name not in GRID_OF and rates[name] in (GRID[0], GRID[-1])],
            "parameters": "the plane's vectors hold all parameters, in the order of module.parameters()",
        },
    )  # fmt: skip


@dataclass(slots=True, eq=False)
class _Run:
    """One seed's race: losses and images by optimizer, the plain one's losses, who fell out, and the plane."""

    loss: np.ndarray
    images: np.ndarray
    plain: np.ndarray
    out: dict[str, str]
    plane: Plane | None


def _run(race: Race, plane_at: int | None) -> _Run:
    loss = np.full((len(race.names), race.count + 1), np.nan)
    images = np.zeros(loss.shape, dtype=np.int64)
    step = None
    for step in race.steps():
        loss[:, step.index] = list(step.losses.values())
        images[:, step.index :] = np.array(list(step.images.values()))[:, None]
    assert step is not None
    plane = None
    if plane_at is not None:
        plane = step.plane()
        missing = plane_at - step.index  # all fell out early
        plane = Plane(
            plane.centre,
            plane.axes,
            np.pad(plane.paths, ((0, 0), (0, missing), (0, 0)), constant_values=np.nan),
            np.pad(plane.off, ((0, 0), (0, missing)), constant_values=np.nan),
            plane.explained,
        )
    if PLAIN in race.names:
        return _Run(loss, images, loss[race.names.index(PLAIN)], dict(step.out), plane)
    alone = np.full(race.count + 1, np.nan)
    for seen in replace(race, names=(PLAIN,)).steps():
        alone[seen.index] = seen.losses[PLAIN]
    return _Run(loss, images, alone, dict(step.out), plane)


def _row(name: str, i: int, rates: dict[str, float], losses: np.ndarray, first: _Run) -> tuple:
    mine, ends = losses[0, i], losses[:, i, -1]
    end = mine[np.isfinite(mine)][-1]
    spread: tuple = ()
    if len(losses) > 1:  # a mean without those that fell out would flatter it
        whole = bool(np.isfinite(ends).all())
        spread = (float(ends.mean()), float(ends.min()), float(ends.max())) if whole else (None, None, None)
    return (
        name, rates[name], float(mine[0]), float(end), float(np.nanmin(mine)), *spread, int(first.images[i, -1]),
        first.out.get(name, ""),
    )  # fmt: skip


def _ends(losses: np.ndarray) -> np.ndarray:
    """The mean last loss over seeds, infinite for one that fell out in any."""
    ends = losses[..., -1]
    return np.where(np.isfinite(ends), ends, np.inf).mean(0)


def _checks(names: tuple[str, ...], losses: np.ndarray, plains: np.ndarray, plane: Plane) -> tuple[Check, ...]:
    ends, checks = _ends(losses), []
    best = int(ends.argmin())
    if np.isfinite(ends[best]):
        mine, null = losses[:, best, -1], plains[:, -1]
        fair = bool(np.isfinite(null).all())
        many = len(losses) > 1
        checks.append(
            Check(
                "the best against plain gradient descent",
                float(mine.mean()),
                float(null.mean()) if fair else None,
                (float(mine.min()), float(mine.max())) if many else None,
                bool(mine.max() < null.min()) if fair and many else None,
                f"Loss of {names[best]} at the end; the null is gradient descent with all images at every step, its rate "
                f"swept the same way{'' if fair else ', which fell out'}. "
                + ("The interval is the range over seeds." if many else "One seed: no spread, so no verdict."),
            )
        )
        order = np.argsort(ends, kind="stable")
        if many and np.isfinite(ends[order[1]]):
            apart = losses[:, order[1], -1] - losses[:, order[0], -1]
            checks.append(
                Check(
                    "the first is ahead of the second in every seed",
                    float(apart.mean()),
                    0.0,
                    (float(apart.min()), float(apart.max())),
                    bool(apart.min() > 0),
                    f"Loss of {names[order[1]]} less that of {names[order[0]]} at the end, {len(losses)} seeds, and its range.",
                )
            )
    checks.append(
        Check(
            "the plane's share of the variance",
            plane.explained,
            meaning="How much of all the paths' variance the plane shows; the rest is off it, and so are the exact losses.",
        )
    )
    return tuple(checks)


def _summary(
    names: tuple[str, ...], losses: np.ndarray, plains: np.ndarray, rates: dict[str, float], first: _Run, seeds: int
) -> str:
    ends = _ends(losses)
    best = int(ends.argmin())
    over = f", mean of {seeds} seeds" if seeds > 1 else ""
    if not np.isfinite(ends[best]):
        said = "Every optimizer fell out: lower the rates."
    else:
        plain = plains[:, -1].mean()
        said = (
            f"Lowest loss after {losses.shape[2] - 1} steps: {number(ends[best])} by {names[best]} at a rate of "
            f"{rates[names[best]]:.3g}, from {number(losses[0, best, 0])} at the start{over}"
            + (
                f"; plain gradient descent {number(plain)}."
                if np.isfinite(plain)
                else "; plain gradient descent fell out."
            )
        )
    fell = "".join(f" {name} {reason}." for name, reason in first.out.items())
    assert first.plane is not None
    return f"{said}{fell} The plane shows {100 * first.plane.explained:.0f} % of the paths' variance."
