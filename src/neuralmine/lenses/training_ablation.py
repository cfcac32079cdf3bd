from __future__ import annotations

from typing import Annotated

import numpy as np

from ..experiments import INGREDIENTS, Ablation
from ..intervals import best_of, holm, paired
from ..lens import lens
from ..types import Between, Check, Dataset, Finding, Network
from ..views import Bars, Table


@lens()
def training_ablation(
    network: Network,
    data: Dataset,
    *,
    ingredients: str = "",
    seeds: Annotated[int, Between(2, 100)] = 5,
    epochs: Annotated[int, Between(1, 1_000_000)] = 20,
    limit: Annotated[int, Between(0, 10_000_000)] = 0,
    test: Annotated[float, Between(0.01, 0.9)] = 0.25,
    optimizer: str = "adam",
    lr: Annotated[float, Between(0, 1e6)] = 0.02,
    batch: Annotated[int, Between(1, 1_000_000)] = 32,
    seed: int = 0,
) -> Finding:
    """Which ingredient of training helps this network, and which difference is only noise?

    The plain recipe (constant rate, nothing else) is the baseline. Each other run adds one ingredient to it and shares,
    seed by seed, its split, its random start and its batches, so what is compared are pairs. One run is the plain
    recipe again with its batches in another order: its difference is noise, and so large is noise here (the null).

    Each mean difference has a 95 % interval and a p-value (Student's t over the seeds). Random splits of one data set
    share images, which makes their spread too small; the variance is widened for it (Nadeau and Bengio 2003). Many
    ingredients are many chances to be lucky: the p-values are raised by Holm's rule, and the word is "helps" or
    "hurts" only below 0.05 after that, else "within noise".

    Numbers: "accuracy", "loss" (on the held-out images), "train_accuracy" and "epochs" (when it ended), each runs ×
    seeds: the plain recipe, the same again, then the ingredients that fit; "difference" (ingredients, mean accuracy less
    the plain one's), "interval" (ingredients × 2), "p", "p_holm"; "noise" (seeds: plain again less plain).

    Options:
        ingredients: which, with commas between: cosine, step, warmup, dropout, batch_norm, weight_decay, augmentation,
            label_smoothing, weight_averaging, early_stopping; empty for all that fit.
        seeds: how many pairs, each with another split and another start.
        epochs: how often every image is seen.
        limit: train on at most so many images (the classes in their proportions); 0 for all.
        test: share of images held out.
        optimizer: sgd, adam, or any class of torch.optim.
        lr: learning rate.
        batch: images an update.
        seed: the first seed.

    Raises UnknownName for an ingredient that does not exist, UsageError when none fits or the network cannot be started
    anew, DataError when the data do not fit the network.

    Source: Nadeau and Bengio 2003 (resampled t), Holm 1979; Srivastava 2014 (dropout), Ioffe and Szegedy 2015 (batch
    norm), Loshchilov and Hutter 2017 (cosine), Goyal 2017 (warm-up), Szegedy 2016 (label smoothing), Izmailov 2018
    (weight averaging), Prechelt 1998 (early stopping).

    >>> import neuralmine as nm
    >>> net, data = nm.load("64-10"), nm.datasets.load("digits").take(slice(0, 300))
    >>> finding = nm.look("training_ablation", net, data, ingredients="cosine,weight_decay", seeds=2, epochs=2)
    >>> finding.numbers["accuracy"].shape, finding.provenance["runs"]
    ((4, 2), ['plain', 'plain again', 'cosine', 'weight_decay'])
    """
    work = Ablation.of(
        network, data, ingredients, seeds, seed, test, limit, optimizer=optimizer, lr=lr, batch=batch, epochs=epochs
    )
    for _ in work.steps():
        pass
    return told(work)


def told(work: Ablation) -> Finding:
    """The finding of an experiment that has run to its end."""
    away = work.accuracy - work.accuracy[0]
    found = [paired(row, work.overlap) for row in away[2:]]
    p = np.array([one[2] for one in found])
    raised, difference = holm(p), np.round([one[0] for one in found], 12)  # +x and −x are 0, not 2e-18
    interval = np.array([one[1] for one in found])
    words = tuple(word(difference[i], raised[i]) for i in range(len(found)))
    noise = paired(away[1], work.overlap)
    rows = [
        _row(work, 0, None, None, None, "the baseline"),
        _row(work, 1, noise[:2], noise[2], None, "noise: the null"),
    ]
    rows += [_row(work, i + 2, found[i][:2], float(p[i]), float(raised[i]), words[i]) for i in range(len(found))]
    rows += [
        (name, None, None, None, None, None, None, None, f"left out: {why}") for name, why in work.left_out.items()
    ]
    names, best = work.names[2:], int(work.accuracy.mean(1).argmax())
    plain = float(work.accuracy[0].mean())
    lucky = best_of(plain, work.test_images, len(work.names))
    clear = [
        f"{name} {said} ({100 * difference[i]:+.1f} points)".replace("-", "−")
        for i, (name, said) in enumerate(zip(names, words, strict=True))
        if said != NOISE
    ]
    tested = f"{len(names)} ingredient{'s' if len(names) > 1 else ''}, {work.seeds} seeds"
    top = int(np.abs(difference).argmax())
    return Finding(
        {
            "accuracy": work.accuracy,
            "loss": work.loss,
            "train_accuracy": work.train_accuracy,
            "epochs": work.epochs,
            "difference": difference,
            "interval": interval,
            "p": p,
            "p_holm": raised,
            "noise": away[1],
        },
        (
            Bars("what each adds to the accuracy of the plain recipe", names, 100 * difference, None, "points", None, True),
            Table(
                "each ingredient against the plain recipe, on the same splits, starts and batches",
                ("run", "accuracy", "difference", "95 % from", "to", "p", "p (Holm)", "epochs", "in a word"),
                tuple(rows),
            ),
        ),
        (
            Check(
                f"the largest difference, {names[top]}, is more than noise",
                float(difference[top]),
                float(noise[0]),
                (float(interval[top, 0]), float(interval[top, 1])),
                bool(raised[top] < 0.05),
                f"Share of held-out images; the null is the same recipe with other batches. p {p[top]:.2g}, after Holm for {tested} {raised[top]:.2g}.",
            ),
            Check(
                "the best run's accuracy, and what the best of so many equal ones would show",
                float(work.accuracy[best].mean()),
                lucky,
                None,
                None,
                f"Whoever takes the best of {len(work.names)} runs on the same {work.test_images} images reads up to {100 * (lucky - plain):.1f} points "
                "too much when all are equally good and err independently (one seed). Judge the one chosen on images that were never looked at.",
            ),
        ),
        summary=f"Plain recipe: {100 * plain:.1f} % right ({tested}, {work.train_images} training images, {work.test_images} held out). "
        + (", ".join(clear) + "; the rest is within noise." if clear else f"No difference is clear of noise: the same recipe with other batches differs by {100 * np.abs(away[1]).mean():.1f} points a seed.")
        + unfinished(float(work.train_accuracy[0].mean()))
        + "".join(f" Left out: {name}. {why}" for name, why in work.left_out.items()),
        provenance={
            "runs": list(work.names), "recipe": {**work.recipe, "schedule": "constant"}, "left_out": dict(work.left_out),
            "ingredients": {name: INGREDIENTS[name][0] for name in names}, "overlap": work.overlap, "broken": dict(work.broken),
        },
    )  # fmt: skip


NOISE = "within noise"


def unfinished(train_accuracy: float) -> str:
    """A warning when the plain recipe has not even learnt its own images: then speed is compared, not the end."""
    if train_accuracy >= 0.9:
        return ""
    return f" It gets only {100 * train_accuracy:.0f} % of its own training images right: train longer before believing this."


def word(difference: float, p: float) -> str:
    """What a difference is called, p raised for how many there are."""
    return NOISE if p >= 0.05 else "helps" if difference > 0 else "hurts"


def _row(
    work: Ablation,
    i: int,
    found: tuple[float, tuple[float, float]] | None,
    p: float | None,
    raised: float | None,
    said: str,
) -> tuple:
    low, high = found[1] if found else (None, None)
    name = work.names[i]
    return (
        name, float(work.accuracy[i].mean()), round(found[0], 12) if found else None, low, high, p, raised,
        float(work.epochs[i].mean()), said,
    )  # fmt: skip
