from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np

from ..errors import UsageError
from ..intervals import wilson
from ..lens import lens
from ..losses import chosen
from ..tracing import trace
from ..types import Between, Check, Dataset, Finding, Network
from ..views import Bars, Lines, Table, number

if TYPE_CHECKING:
    import torch

COLDEST, HOTTEST = 0.02, 50.0  # temperatures tried


@lens()
def calibration(
    network: Network,
    data: Dataset,
    *,
    bins: Annotated[int, Between(2, 200)] = 15,
    draws: Annotated[int, Between(20, 100_000)] = 1000,
    seed: int = 0,
) -> Finding:
    """When the network is 90 % sure, is it right nine times in ten?

    An image's confidence is the score of the class that was said. For a cross-entropy network that is the largest
    softmax probability, and all of them add up to 1; for outputs that are activations from 0 to 1 (sigmoid) it is the
    brightest one as it is: they are not normalised, so their sum is anything from 0 to the number of outputs.

    The interval from 0 to 1 is cut into bins of equal width, ((m − 1)/M, m/M]. Expected calibration error (ECE) =
    Σ over bins (images in it ÷ all images) × |accuracy − mean confidence|; the maximum one (MCE) is the largest gap.
    Few images in a bin make a gap by chance alone, so ECE is above 0 also for perfect confidences: the null draws
    right or wrong from the confidences themselves (Bernoulli), again and again, and takes the ECE of that.

    A temperature T divides the logits (for sigmoid outputs the sums under the sigmoid); it is fitted on one half of
    the images, drawn by the seed, by the lowest mean −log probability of the right class (sigmoid: of the chosen class
    being right or not), and judged on the other half. It changes no answer, only how sure it is.

    Numbers: for the bins that hold an image "low", "high" (its limits), "count", "confidence", "accuracy", "interval"
    (bins × 2: 95 %, Wilson), "gap" (accuracy − confidence) and "part" (of the ECE; they add up to it); for the images
    "bin" (which of those bins), "sure" (confidence), "said", "right" and "sum" (of the scores); "ece", "ece_interval"
    (95 %, bootstrap over images), "mce", "null" (draws), "accurate" (accuracy on all); "temperature", "ece_before",
    "ece_after", "loss_before", "loss_after" (−log probability, nats) on the "held_out" images, "ece_null" (draws: what
    perfect confidences after the temperature would show there), and "after_confidence", "after_accuracy", "after_count".

    Options:
        bins: how many of equal width.
        draws: of the null and of the bootstrap.
        seed: of the halves, the null and the bootstrap.

    Raises UsageError for scores outside 0 to 1 and for fewer than 4 images, DataError when the data do not fit.

    Source: Guo, Pleiss, Sun and Weinberger 2017; the bias of ECE: Nixon et al. 2019.

    >>> import neuralmine as nm
    >>> finding = nm.look("calibration", nm.load("digits"), nm.datasets.load("digits").split()[1])
    >>> round(float(finding.numbers["part"].sum() - finding.numbers["ece"]), 12)
    0.0
    """
    if len(data) < 4:
        raise UsageError(f"{len(data)} images are too few for two halves.", "Give at least 4; some hundreds say more.")
    output = trace(network, data.images).output.detach()
    predictions = network.decode(output)
    scores = np.stack([prediction.scores for prediction in predictions]).astype(float)
    if scores.min() < -1e-9 or scores.max() > 1 + 1e-9:
        raise UsageError(
            f"The outputs run from {scores.min():.3g} to {scores.max():.3g}; a confidence lies from 0 to 1.",
            "If they are logits, load the network with loss='cross_entropy'.",
        )
    said, labels = chosen(output).cpu().numpy(), np.asarray(data.labels)
    right, sure = said == labels, scores[np.arange(len(said)), said].clip(0, 1)
    table = reliability(sure, right, bins)
    ece, mce = float(table["part"].sum()), float(np.abs(table["gap"]).max())
    generator = np.random.default_rng(seed)
    crowd = int(table["count"][np.abs(table["gap"]).argmax()])
    null = by_chance(sure, bins, draws, generator)
    resampled = _bootstrap(sure, right, bins, draws, generator)
    interval = float(np.quantile(resampled, 0.025)), float(np.quantile(resampled, 0.975))

    softmax = network.loss == "cross_entropy"
    half = generator.permutation(len(said))
    fitted, judged = np.sort(half[: len(half) // 2]), np.sort(half[len(half) // 2 :])
    logits = _logits(output, softmax)
    temperature = fitted_temperature(logits[fitted], said[fitted], labels[fitted], softmax)
    warm = confidences(logits[judged], said[judged], temperature, softmax)
    before = reliability(sure[judged], right[judged], bins)
    after = reliability(warm, right[judged], bins)
    ece_before, ece_after = float(before["part"].sum()), float(after["part"].sum())
    ece_null = by_chance(warm, bins, draws, generator)
    args = (logits[judged], said[judged], labels[judged])
    limit, limit_after = float(np.quantile(null, 0.95)), float(np.quantile(ece_null, 0.95))
    away = float(np.abs(scores.sum(1) - 1).max())
    edge = not COLDEST * 1.01 < temperature < HOTTEST / 1.01
    numbers: dict[str, np.ndarray] = {
        **table,
        "sure": sure,
        "said": said,
        "right": right.astype(np.int8),
        "sum": scores.sum(1),
        "accurate": np.array(right.mean()),
        "ece": np.array(ece),
        "ece_interval": np.array(interval),
        "mce": np.array(mce),
        "null": null,
        "temperature": np.array(temperature),
        "ece_before": np.array(ece_before),
        "ece_after": np.array(ece_after),
        "ece_null": ece_null,
        "loss_before": np.array(loss_at(1.0, *args, softmax)),
        "loss_after": np.array(loss_at(temperature, *args, softmax)),
        "held_out": judged,
        "after_confidence": after["confidence"],
        "after_accuracy": after["accuracy"],
        "after_count": after["count"],
    }
    names = tuple(f"{low:.3g}–{high:.3g}" for low, high in zip(table["low"], table["high"], strict=True))
    kind = "softmax probability" if softmax else "activation (not normalised)"
    lean = "surer than it is right" if sure.mean() > right.mean() else "less sure than it is right"
    return Finding(
        numbers,
        (
            Lines(
                "accuracy by confidence; a calibrated network is on the diagonal",
                table["confidence"],
                {
                    "accuracy": table["accuracy"],
                    "calibrated": table["confidence"],
                    "95 % from": table["interval"][:, 0],
                    "95 % to": table["interval"][:, 1],
                },
                f"mean {kind} of a bin",
                "share that is right",
            ),
            Bars("images in each bin", names, table["count"].astype(float), unit="images"),
            Table(
                "the bins",
                ("confidence", "images", "mean confidence", "accuracy", "95 % from", "to", "gap", "part of ECE"),
                tuple(
                    (names[i], int(table["count"][i]), *(float(table[key][i]) for key in ("confidence", "accuracy")),
                     *map(float, table["interval"][i]), float(table["gap"][i]), float(table["part"][i]))
                    for i in range(len(names))
                ),
                ("all", len(said), float(sure.mean()), float(right.mean()), None, None, float(right.mean() - sure.mean()), ece),
            ),
        ),
        (
            Check(
                "calibrated as far as so many images can tell",
                ece,
                limit,
                interval,
                bool(ece <= limit),
                f"ECE; the null is the 95th percentile of {draws} draws in which each image is right as often as its confidence "
                f"says (their mean is {null.mean():.4f}: what ECE shows for nothing). The interval is a bootstrap over images.",
            ),
            Check(
                "calibrated after the temperature",
                ece_after,
                limit_after,
                None,
                bool(ece_after <= limit_after),
                f"ECE of the {len(judged)} images the temperature was not fitted on, {ece_before:.4f} before; the null as above."
                + (f" T = {temperature:.3g} is the edge of what was tried: the fitting half holds too few mistakes." if edge else ""),
            ),
            Check(
                "the scores add up to 1",
                away,
                None,
                None,
                bool(away < 1e-6) if softmax else None,
                "Largest |sum − 1| over the images. "
                + ("Softmax makes it 0 but for rounding." if softmax else "Sigmoid outputs are not normalised: nothing asks them to."),
            ),
        ),
        summary=f"ECE {number(ece)} over {len(names)} of {bins} bins that hold one of {len(said)} images ({data.name}), {number(null.mean())} would be "
        f"chance; MCE {number(mce)} (in a bin of {crowd} image{'s' if crowd > 1 else ''}). On average {lean}: confidence {100 * sure.mean():.1f} %, accuracy {100 * right.mean():.1f} %. "
        + (f"No temperature fits: the best of those tried, {COLDEST:g} to {HOTTEST:g}, is the edge. " if edge else "")
        + f"Temperature {number(temperature)}: ECE {number(ece_before)} to {number(ece_after)} on the other half. Confidence is the "
        f"{'largest softmax probability' if softmax else 'brightest sigmoid output, which is not normalised'}.",
        provenance={"confidence": kind, "edge": edge, "tried": [COLDEST, HOTTEST], "formula": "ECE = sum over bins of count/n × |accuracy − mean confidence| (Guo et al. 2017)"},
    )  # fmt: skip


def which_bin(sure: np.ndarray, bins: int) -> np.ndarray:
    """The bin of each confidence: bin m holds ((m)/M, (m + 1)/M], the first also 0.

    >>> which_bin(np.array([0.0, 0.1, 0.2, 1.0]), 10).tolist()
    [0, 0, 1, 9]
    """
    edges = np.linspace(0, 1, bins + 1)
    return np.clip(np.searchsorted(edges, sure, side="left") - 1, 0, bins - 1)


def reliability(sure: np.ndarray, right: np.ndarray, bins: int) -> dict[str, np.ndarray]:
    """For every bin that holds an image its limits, count, mean confidence, accuracy, interval, gap and part of ECE."""
    places = which_bin(sure, bins)
    held, of = np.unique(places, return_inverse=True)
    count = np.bincount(of)
    confidence = np.bincount(of, sure) / count
    hits = np.bincount(of, right)
    accuracy = hits / count
    gap = accuracy - confidence
    return {
        "low": held / bins,
        "high": (held + 1) / bins,
        "count": count,
        "confidence": confidence,
        "accuracy": accuracy,
        "interval": np.array([wilson(int(h), int(n)) for h, n in zip(hits, count, strict=True)]),
        "gap": gap,
        "part": count / len(sure) * np.abs(gap),
        "bin": of,
    }


def by_chance(sure: np.ndarray, bins: int, draws: int, generator: np.random.Generator) -> np.ndarray:
    """The ECE of each draw in which every image is right with a probability of exactly its confidence."""
    places, count = which_bin(sure, bins), len(sure)
    # One draw at a time: a large data set would not fit as draws × images.
    return np.array(
        [np.abs(np.bincount(places, (generator.random(count) < sure) - sure)).sum() / count for _ in range(draws)]
    )


def _bootstrap(
    sure: np.ndarray, right: np.ndarray, bins: int, draws: int, generator: np.random.Generator
) -> np.ndarray:
    """The ECE of as many images drawn anew with replacement, so often."""
    places, excess, count = which_bin(sure, bins), right - sure, len(sure)
    found = np.empty(draws)
    for i in range(draws):
        drawn = generator.integers(0, count, count)
        found[i] = np.abs(np.bincount(places[drawn], excess[drawn])).sum() / count
    return found


def _logits(output: torch.Tensor, softmax: bool) -> np.ndarray:
    """What a temperature divides: the logits, or what the sigmoids were taken of."""
    values = output.double().cpu().numpy()
    if softmax:
        return values
    values = values.clip(1e-12, 1 - 1e-12)
    values = np.log(values / (1 - values))
    return np.concatenate([-values, values], 1) if values.shape[1] == 1 else values


def confidences(logits: np.ndarray, said: np.ndarray, temperature: float, softmax: bool) -> np.ndarray:
    """The score of the class said, at a temperature."""
    from scipy.special import expit, log_softmax

    rows = np.arange(len(said))
    return (
        np.exp(log_softmax(logits / temperature, 1)[rows, said]) if softmax else expit(logits[rows, said] / temperature)
    )


def loss_at(temperature: float, logits: np.ndarray, said: np.ndarray, labels: np.ndarray, softmax: bool) -> float:
    """Mean −log probability: of the right class, or (sigmoid) of the chosen class being right or wrong as it is."""
    from scipy.special import log_expit, log_softmax

    rows = np.arange(len(said))
    if softmax:
        return -float(log_softmax(logits / temperature, 1)[rows, labels].mean())
    signed = np.where(said == labels, 1, -1) * logits[rows, said] / temperature
    return -float(log_expit(signed).mean())


def fitted_temperature(logits: np.ndarray, said: np.ndarray, labels: np.ndarray, softmax: bool) -> float:
    """The temperature with the lowest loss. The loss is convex in 1/T, so the one minimum there is, is found."""
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda cold: loss_at(1 / cold, logits, said, labels, softmax),
        bounds=(1 / HOTTEST, 1 / COLDEST),
        method="bounded",
        options={"xatol": 1e-7},
    )
    return float(1 / found.x)
