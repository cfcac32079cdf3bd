from __future__ import annotations

from itertools import combinations

import numpy as np

from ..networks import load
from ..progress import over
from ..sentences import stream
from ..types import Check, Finding, Network, Verdict
from ..views import Lines

ANIMALS = [
    "cat",
    "dog",
    "fox",
    "wolf",
    "lion",
    "tiger",
    "bear",
    "hawk",
    "owl",
    "snake",
    "rat",
    "frog",
    "hen",
    "goat",
    "cow",
    "pig",
]
SPLITS = 10


def predator_prey(*, seed: int = 0) -> Verdict:
    """Do the vectors of two nouns say who chases whom?

    120 pairs of animals, each in four sentences: "the cat has chased only the dog", "the cat is chased by the dog", and
    both the other way round. Neither the animals nor their places tell who chases: a bag of words, or of words and
    places, about the two animals is right half of the time, by construction. At every layer a linear probe reads the difference of the two nouns' vectors; it is trained on half
    of the animals and asked about pairs of the other half. Nulls: labels shuffled, and the same network untrained.
    """
    from sklearn.linear_model import RidgeClassifier

    network, blank = load("minilm"), load("minilm", trained=False, seed=seed)
    (pairs, chases, trained), (_, _, untrained) = [
        _differences(one) for one in over((network, blank), "network", until=0.9)
    ]
    generator = np.random.default_rng(seed)
    scores = {"trained": [], "untrained": [], "labels shuffled": []}
    for _ in over(range(SPLITS), "split"):
        known = np.zeros(len(ANIMALS), bool)
        known[generator.permutation(len(ANIMALS))[: len(ANIMALS) // 2]] = True
        train, test = known[pairs].all(1), ~known[pairs].any(1)
        shuffled = generator.permutation(chases[train])
        for name, values, labels in (
            ("trained", trained, chases[train]),
            ("untrained", untrained, chases[train]),
            ("labels shuffled", trained, shuffled),
        ):
            by_layer = []
            for layer in values:
                probe = RidgeClassifier(alpha=layer.shape[1], fit_intercept=False)
                scale = layer[train].std() or 1.0
                by_layer.append(probe.fit(layer[train] / scale, labels).score(layer[test] / scale, chases[test]))
            scores[name].append(by_layer)
    means = {name: np.array(rows).mean(0) for name, rows in scores.items()}
    spread = np.array(scores["trained"]).std(0, ddof=1)
    best = int(means["trained"].argmax())
    # The best of all layers is chosen, so it is compared with the best of all layers by chance.
    chance = float(np.quantile(np.array(scores["labels shuffled"]).max(1), 0.95))
    gain = float(means["trained"][best] - 0.5)
    beaten = float(means["untrained"].max())
    above = bool(gain >= 0.1 and means["trained"][best] > max(chance, beaten))
    finding = Finding(
        {**{name.replace(" ", "_"): np.array(rows) for name, rows in scores.items()}},
        (Lines("who chases whom, read from two nouns by a linear probe", np.arange(len(trained)),
               {**means, "bag of words": np.full(len(trained), 0.5)}, "layer", "right on unseen animals", 1.0),),
        (
            Check("right at the best layer", float(means["trained"][best]), chance, (float(means["trained"][best] - spread[best]), float(means["trained"][best] + spread[best])),
                  above, f"Mean of {SPLITS} splits of the animals and their spread; the null is the best layer with shuffled labels, 95 %."),
            Check("the same network untrained, best layer", beaten, 0.5, None, None, "What the architecture alone gives."),
        ),
        f"Layer {best} says who chases whom in {100 * means['trained'][best]:.0f} % of sentences about unseen animals; words alone: 50 %.",
    )  # fmt: skip
    return Verdict(
        "The numerical relationships between “Cat,” “Chases,” and “Mice” now encode a complete predator-prey relationship",
        "Mining for Meaning (2025)",
        "A linear probe on two nouns tells the chaser at least 10 points more often than a bag of words, on animals it has not seen.",
        f"{100 * means['trained'][best]:.1f} ± {100 * spread[best]:.1f} % at layer {best}, {100 * means['trained'][0]:.0f} % at layer 0 (n = {SPLITS} splits)",
        f"50 % bag of words, {100 * chance:.0f} % shuffled labels, {100 * beaten:.0f} % untrained",
        "holds" if above else "partly" if gain > 0.05 else "not here",
        finding,
    )


def _differences(network: Network) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs (n × 2), whether the first chases (n), and the difference of their vectors (layers × n × d)."""
    pairs, chases, values = [], [], []
    for a, b in over(list(combinations(range(len(ANIMALS)), 2)), "pair of animals"):
        for first in (True, False):
            chaser, chased = (a, b) if first else (b, a)
            for text in (
                f"the {ANIMALS[chaser]} has chased only the {ANIMALS[chased]}",
                f"the {ANIMALS[chased]} is chased by the {ANIMALS[chaser]}",
            ):
                seen = stream(network, text)
                words = [token.text for token in seen.tokens]
                places = [words.index(ANIMALS[animal]) for animal in (a, b)]
                values.append(seen.states[:, places[0]] - seen.states[:, places[1]])
                pairs.append((a, b))
                chases.append(first)
    return np.array(pairs), np.array(chases), np.stack(values, 1).astype(np.float64)
