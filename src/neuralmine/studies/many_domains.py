from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from ..architectures import build
from ..datasets import load
from ..datasets.colour_names import words
from ..datasets.vowels import RATE, SAMPLES, spectra
from ..intervals import holm, paired
from ..networks.torch_module import network_of
from ..progress import over
from ..training import one_thread, train
from ..types import Check, Dataset, Finding, Verdict
from ..views import Bars, Lines, Table
from ._cart_pole import ACTIONS, TICK, TICKS, attempt, lessons, seen, starts, teacher

STARTS, UPDATES, BATCH, HIDDEN = 4, 400, 128, 64
SOUNDS, LESSONS, ATTEMPTS = 2000, 8000, 40
OVERLAP = 1 / 3  # test ÷ training pictures of the random splits of one set
HEARD = ("heed", "hod")  # the vowels that are shown
WAYS = ("net", "no hidden layer", "nearest example", "always the same")
Policy = Callable[[np.ndarray], np.ndarray]  # examples × numbers to the class of each
Score = Callable[[Policy], float]


@dataclass(frozen=True)
class Domain:
    """One job: which part of the essay's list it stands for, whether its data are real, and how it is scored."""

    name: str
    job: str
    data: str
    score: str
    overlap: float


DOMAINS = (
    Domain("image", "which digit is it?", "real: 1,797 handwritten digits", "right on unseen pictures", OVERLAP),
    Domain("medicine", "is a breast tumour malignant?", "real: 569 tumours, 30 measures of their cells", "right on unseen tumours", OVERLAP),
    Domain("sound", "which of ten vowels is it?", f"generated: {SOUNDS:,} sounds, their spectra", "right on new sounds", 0.0),
    Domain("text", "which kind of colour does a name mean?", "real: 949 names that people gave to colours", "right on unseen names", OVERLAP),
    Domain("control", "swing a pole up and hold it", f"simulated: {LESSONS:,} lessons of a rule made by hand", "share of 10 s upright, new starts", 0.0),
)  # fmt: skip


def many_domains(*, seed: int = 0) -> Verdict:
    """Does one kind of small net learn pictures, measurements, sounds, names and control alike?

    One recipe for all: a hidden layer of 64 units, 400 updates of 128 examples, the same optimiser and rate. Handwritten
    digits; breast tumours from measures of their cells; ten vowels from generated sounds; the kind of colour that a
    name means, from its letters; and a cart that has to swing up a hanging pole, learned from a rule's example. Each is
    asked about what it has not seen, four times with other parts, beside the same net without its hidden layer, the
    nearest training example, and always the commonest answer; in the first start also the same net taught shuffled
    labels. The pole is also driven by random pushes, and by pushing where it leans.
    """
    right = np.zeros((len(DOMAINS), len(WAYS), STARTS))
    shuffled = np.zeros(len(DOMAINS))
    last: list[tuple[Policy, ...]] = [()] * len(DOMAINS)
    with one_thread():
        for run in over(range(STARTS), "start"):
            for row, domain in over(list(enumerate((_digits, _tumours, _vowels, _names, _pole))), "domain"):
                train_part, score = domain(seed + run)
                last[row] = ways(train_part, seed + run)
                right[row, :, run] = [score(policy) for policy in last[row]]
                if run == 0:
                    shuffled[row] = score(taught(mixed(train_part, seed), (HIDDEN,), seed))
        return judged(right, shuffled, _shown(last[3][0], last[4][:2], seed + STARTS - 1))


def judged(right: np.ndarray, shuffled: np.ndarray, shown: Mapping[str, np.ndarray]) -> Verdict:
    """The verdict on how well each way did (domains × ways × starts), and a net taught shuffled labels."""
    means = right.mean(2)
    gains = [paired(rows[0] - rows[1], domain.overlap) for rows, domain in zip(right, DOMAINS, strict=True)]
    sure = holm([p for _, _, p in gains])
    deeper = np.array([mean > 0 and p < 0.05 for (mean, _, _), p in zip(gains, sure, strict=True)])
    learns: np.ndarray = np.all(right[:, 0] > np.maximum(right[:, 3], shuffled[:, None]), axis=1)
    nearest = [paired(rows[0] - rows[2], domain.overlap) for rows, domain in zip(right, DOMAINS, strict=True)]
    sd = right[:, 0].std(1, ddof=1)
    finding = Finding(
        {"right": right, "shuffled": shuffled, **{name: value for name, value in shown.items() if value.dtype.kind in "fib"}},
        (
            Bars(f"the net on what it has not seen, mean of {right.shape[2]} starts", tuple(one.name for one in DOMAINS), means[:, 0], None, "share", 1.0),
            Table("beside it", ("domain", "the job", "data", *WAYS, "shuffled labels", "net − no hidden layer", "from", "to"),
                  tuple((one.name, one.job, one.data, *map(float, means[i]), float(shuffled[i]), gains[i][0], *gains[i][1]) for i, one in enumerate(DOMAINS))),
            *_pictures(shown),
        ),
        (
            *(
                Check(f"{one.name}: {one.job}", float(means[i, 0]), float(max(shuffled[i], means[i, 3])), (float(right[i, 0].min()), float(right[i, 0].max())), bool(learns[i]),
                      f"{one.score.capitalize()}; mean and range of {right.shape[2]} starts, beside the better of shuffled labels ({shuffled[i]:.3f}) and always the same answer ({means[i, 3]:.3f}). "
                      f"{one.data.capitalize()}. The nearest example reaches {means[i, 2]:.3f}.")
                for i, one in enumerate(DOMAINS)
            ),
            *(
                Check(f"{one.name}: the hidden layer helps", float(means[i, 0]), float(means[i, 1]), None, bool(deeper[i]),
                      f"The gain over the same net without it is {100 * gains[i][0]:+.1f} points (95 %: {100 * gains[i][1][0]:+.1f} to {100 * gains[i][1][1]:+.1f}), p = {sure[i]:.2g} of {len(DOMAINS)} tests together (Holm).")
                for i, one in enumerate(DOMAINS)
            ),
        ),
        f"Better than shuffled labels and than always the same answer in {int(learns.sum())} of {len(DOMAINS)} domains; the hidden layer helps in {int(deeper.sum())}; "
        f"the nearest example is better in {sum(bool(interval[1] < 0) for _, interval, _ in nearest)}. These are small stand-ins: no car was driven and no language translated.",
    )  # fmt: skip
    return Verdict(
        "Deep learning powers: self-driving cars, medical image analysis, voice assistants, translation systems, robotics",
        "Thread 3 — Deep Learning: How Neural Networks Actually Think (2025)",
        "On small jobs of these kinds one recipe of a net beats, on what it has not seen, both shuffled labels and always the same answer; and in each the hidden layer helps, or a weighted sum would do.",
        "; ".join(f"{one.name} {100 * means[i, 0]:.1f} ± {100 * sd[i]:.1f} %" for i, one in enumerate(DOMAINS))
        + f" (n = {right.shape[2]}); the hidden layer helps in {', '.join(one.name for one, helps in zip(DOMAINS, deeper, strict=True) if helps) or 'none'}",
        "; ".join(f"{one.name} {100 * means[i, 3]:.1f} % always the same, {100 * means[i, 1]:.1f} % without a hidden layer" for i, one in enumerate(DOMAINS)),
        "holds" if learns.all() and deeper.all() else "partly" if learns.all() else "not here",
        finding,
    )  # fmt: skip


def taught(data: Dataset, hidden: tuple[int, ...], seed: int) -> Policy:
    """What the recipe's net says of examples, after learning these."""
    sizes = [data.images.shape[1], *hidden, len(data.classes)]
    module = build({"sizes": sizes, "activation": "relu", "output": "linear", "dtype": "float32", "seed": seed})
    network = network_of(module, shape=data.shape, labels=data.classes)
    epochs = max(1, round(UPDATES * BATCH / len(data)))
    for _ in train(network, data, optimizer="adam", lr=0.03, batch=BATCH, epochs=epochs, schedule="cosine", seed=seed):
        pass
    module.requires_grad_(False)
    return lambda examples: module(network.encode(examples)).argmax(1).numpy()


def ways(data: Dataset, seed: int) -> tuple[Policy, ...]:
    """The net, the same without its hidden layer, the nearest example, and always the commonest class."""
    nearest = KDTree(data.images)
    commonest = np.bincount(data.labels).argmax()
    return (
        taught(data, (HIDDEN,), seed),
        taught(data, (), seed),
        lambda examples: data.labels[nearest.query(examples)[1]],
        lambda examples: np.full(len(examples), commonest),
    )


def mixed(data: Dataset, seed: int) -> Dataset:
    """The same examples with their labels shuffled: nothing is left to learn."""
    return Dataset(data.name, data.images, np.random.default_rng([seed, 1]).permutation(data.labels), data.classes)


def accuracy(asked: Dataset) -> Score:
    """How often a policy is right about these."""
    return lambda policy: float((policy(asked.images) == asked.labels).mean())


def parts(data: Dataset, seed: int, *, each: bool = False) -> tuple[Dataset, Dataset]:
    """A training and a test part, centred and scaled by the training part: by one number, or each measure by its own."""
    known, asked = data.split(0.25, seed)
    flat = [part.images.reshape(len(part), -1).astype(np.float64) for part in (known, asked)]
    middle, spread = flat[0].mean(0), flat[0].std(0) if each else flat[0].std()
    return tuple(
        Dataset(part.name, (rows - middle) / np.where(spread > 0, spread, 1), part.labels, part.classes)
        for part, rows in zip((known, asked), flat, strict=True)
    )  # pyright: ignore[reportReturnType]


def _digits(seed: int) -> tuple[Dataset, Score]:
    known, asked = parts(load("digits"), seed)
    return known, accuracy(asked)


def _tumours(seed: int) -> tuple[Dataset, Score]:
    known, asked = parts(load("tumours"), seed, each=True)
    return known, accuracy(asked)


def _vowels(seed: int) -> tuple[Dataset, Score]:
    data = load("vowels", count=SOUNDS, seed=seed)
    known, asked = parts(Dataset(data.name, spectra(data.images), data.labels, data.classes), seed)
    return known, accuracy(asked)


def _names(seed: int) -> tuple[Dataset, Score]:
    known, asked = parts(load("colour-names"), seed)
    return known, accuracy(asked)


def _pole(seed: int) -> tuple[Dataset, Score]:
    generator = np.random.default_rng([seed, 2])
    states, actions = lessons(LESSONS, generator)
    first = starts(ATTEMPTS, generator)
    return Dataset("lessons", seen(states), actions, ACTIONS), lambda policy: float(attempt(_driving(policy), first)[0].mean())  # fmt: skip


def _driving(policy: Policy) -> Policy:
    return lambda states: policy(seen(states))


def _shown(reader: Policy, drivers: tuple[Policy, ...], seed: int) -> dict[str, np.ndarray]:
    """What the pictures show: spectra, names as the net reads them, and attempts of the drivers, by chance, by rules."""
    sounds, names = load("vowels", count=SOUNDS, seed=seed), load("colour-names")
    which, asked = names.split_indices(0.25, seed)[1][:12], parts(names, seed)[1].images[:12]
    classes, generator = np.array(names.classes), np.random.default_rng([seed, 3])
    ways_to_drive = {
        "net": _driving(drivers[0]),
        "no hidden layer": _driving(drivers[1]),
        "random pushes": lambda states: generator.integers(0, len(ACTIONS), len(states)),
        "push where it leans": lambda states: np.where(np.sin(states[:, 2]) > 0, 2, 0),
        "the rule it learned from": teacher,
    }
    first = starts(ATTEMPTS, generator)
    attempts = {name: attempt(policy, first) for name, policy in ways_to_drive.items()}
    return {
        "spectra": np.stack([spectra(sounds.only((name,)).images).mean(0) for name in HEARD]),
        "names": np.column_stack([np.array(words())[which], classes[reader(asked)], classes[names.labels[which]]]),
        "drivers": np.array(list(attempts)),
        "upright": np.array([up.mean() for up, _ in attempts.values()]),
        "height": np.cos(np.stack([path[:, 0, 2] for _, path in attempts.values()])),
    }


def _pictures(shown: Mapping[str, np.ndarray]) -> tuple[Bars | Lines | Table, ...]:
    if not shown:
        return ()
    drivers = tuple(map(str, shown["drivers"]))
    return (
        Lines("sound: two of the generated vowels, mean spectrum", np.fft.rfftfreq(SAMPLES, 1 / RATE), dict(zip(HEARD, shown["spectra"], strict=True)), "Hz", "log of the amplitude"),
        Table("text: names it has not seen", ("name", "the net says", "people mean"), tuple(tuple(map(str, row)) for row in shown["names"])),
        Bars("control: how long the pole is up", drivers, shown["upright"], 0, f"share of {TICK * TICKS:g} s", 1.0),
        Lines("control: one attempt (1 is upright, −1 hangs)", TICK * np.arange(shown["height"].shape[1]), dict(zip(drivers, shown["height"], strict=True)), "seconds", "height of the pole"),
    )  # fmt: skip
