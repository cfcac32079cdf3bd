from __future__ import annotations

from itertools import product

import numpy as np
from scipy.stats import rankdata

from ..networks import load
from ..progress import over
from ..sentences import stream
from ..types import Check, Finding, Network, Verdict
from ..views import Lines

NOUNS = [
    "cat",
    "dog",
    "fox",
    "wolf",
    "lion",
    "tiger",
    "bear",
    "hawk",
    "child",
    "doctor",
    "farmer",
    "king",
    "queen",
    "sailor",
    "teacher",
    "baker",
]
VERBS = ["chased", "followed", "helped", "called", "watched", "pushed", "carried", "feared"]
SENTENCES = 240  # in training and as many, with other nouns, held out
SHUFFLES = 20


def alignment(*, seed: int = 0) -> Verdict:
    """Do a verb and the one who does it align, beyond the other noun of the sentence?

    480 made sentences, half of them "the cat has chased only the dog", half "the cat is chased by the dog": words
    stand at the same places, so place tells nothing. Two measures a layer: how often the doer's cosine with the verb
    exceeds the other noun's (area under the ROC curve), and a linear probe on the product of the two vectors, trained
    on half of the nouns and asked about 240 sentences with the other half (what it remembers of a noun cannot help).
    Nulls: shuffled labels, best of all layers; and the same network untrained.
    """
    generator = np.random.default_rng(seed)
    order = [str(noun) for noun in generator.permutation(NOUNS)]
    halves = order[: len(NOUNS) // 2], order[len(NOUNS) // 2 :]
    sentences = [_sentences(half, generator) for half in halves]
    network, blank = load("minilm"), load("minilm", trained=False, seed=seed)
    train, test, blank_train, blank_test = [
        _pairs(one, made)
        for one, made in over(list(product((network, blank), sentences)), "set of sentences", until=0.9)
    ]
    doer = test["doer"]
    area = np.array([_area(cosine, doer) for cosine in test["cosine"]])
    area_blank = np.array([_area(cosine, doer) for cosine in blank_test["cosine"]])
    probe = _probed(train, test, train["doer"])
    probe_blank = _probed(blank_train, blank_test, train["doer"])
    shuffled = [generator.permutation(doer) for _ in range(SHUFFLES)]
    area_null = float(np.quantile([max(_area(cosine, mixed) for cosine in test["cosine"]) for mixed in shuffled], 0.95))
    probe_null = float(_probed(train, test, generator.permutation(train["doer"])).max())
    top, best = int(area.argmax()), int(probe.argmax())
    aligned = bool(area[top] > max(area_null, float(area_blank.max())) and top > 0)
    read = bool(probe[best] > max(probe_null, float(probe_blank.max())) + 0.05)
    finding = Finding(
        {"area": area, "area_untrained": area_blank, "probe": probe, "probe_untrained": probe_blank},
        (Lines("the doer and the verb, layer by layer", np.arange(len(probe)),
               {"cosine, area under the curve": area, "probe, unseen nouns": probe, "cosine, untrained": area_blank, "probe, untrained": probe_blank},
               "layer", "right (.5 is chance)", 1.0),),
        (
            Check("area of the cosine, best layer", float(area[top]), area_null, None, aligned,
                  "How often the doer lies nearer to its verb than another noun does; null: best layer with shuffled labels, 95 %."),
            Check("probe, best layer", float(probe[best]), max(probe_null, float(probe_blank.max())), None, read,
                  "Right on sentences whose nouns it has never seen; null: the larger of shuffled labels and the untrained network."),
        ),
        f"The doer's cosine with its verb exceeds the other noun's {100 * area[top]:.0f} % of the time at layer {top}; a probe finds the doer in {100 * probe[best]:.0f} %.",
    )  # fmt: skip
    return Verdict(
        "Notice the alignment forming between “Cat” and “Chases”? Subject-verb relationships emerging from numerical patterns.",
        "Mining for Meaning (2025)",
        "The doer's vector grows nearer to the verb's than the other noun's, beyond chance and an untrained network, and a probe can read it.",
        f"the doer is nearer (cosine) in {100 * area[top]:.0f} % of pairs at layer {top}, {100 * area[0]:.0f} % at layer 0; a probe is right in {100 * probe[best]:.0f} % at layer {best} ({len(sentences[1])} sentences, unseen nouns)",
        f"nearer in {100 * area_null:.0f} % by chance, {100 * area_blank.max():.0f} % untrained; probe {100 * probe_null:.0f} % by chance, {100 * probe_blank.max():.0f} % untrained",
        "holds" if aligned and read else "partly" if aligned or read else "not here",
        finding,
    )


def _sentences(nouns: list[str], generator: np.random.Generator) -> list[tuple[str, tuple[str, str], str, int]]:
    made = []
    for i in range(SENTENCES):
        first, second = (str(noun) for noun in generator.choice(nouns, 2, replace=False))
        verb = VERBS[(i // 2) % len(VERBS)]
        text = f"the {first} has {verb} only the {second}" if i % 2 else f"the {first} is {verb} by the {second}"
        made.append((text, (first, second), verb, 0 if i % 2 else 1))
    return made


def _pairs(network: Network, sentences: list[tuple[str, tuple[str, str], str, int]]) -> dict[str, np.ndarray]:
    """For each noun of each sentence: does it act, its cosine with the verb, and the product of the two vectors."""
    products, cosines, doer = [], [], []
    for text, nouns, verb, acting in over(sentences, "sentence"):
        seen = stream(network, text)
        words = [token.text for token in seen.tokens]
        states = seen.states.astype(np.float64)
        act = states[:, words.index(verb)]
        for place, noun in enumerate(nouns):
            own = states[:, words.index(noun)]
            products.append(own * act)
            cosines.append((own * act).sum(-1) / np.linalg.norm(own, axis=-1) / np.linalg.norm(act, axis=-1))
            doer.append(place == acting)
    return {"product": np.stack(products, 1), "cosine": np.stack(cosines, 1), "doer": np.array(doer)}


def _probed(train: dict[str, np.ndarray], test: dict[str, np.ndarray], labels: np.ndarray) -> np.ndarray:
    from sklearn.linear_model import RidgeClassifier

    scores = []
    for known, unseen in zip(train["product"], test["product"], strict=True):
        scale = known.std() or 1.0
        probe = RidgeClassifier(alpha=known.shape[1]).fit(known / scale, labels)
        scores.append(probe.score(unseen / scale, test["doer"]))
    return np.array(scores)


def _area(scores: np.ndarray, positive: np.ndarray) -> float:
    ranks = rankdata(scores)
    count = positive.sum()
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (~positive).sum()))
