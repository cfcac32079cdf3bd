from __future__ import annotations

from typing import Annotated, Literal

import numpy as np

from ..attribution import shuffled_twin
from ..codes import codes_by_layer, dissimilarity, layer_names, of_classes, rank_vector
from ..errors import UsageError
from ..lens import lens
from ..progress import over
from ..types import Between, Check, Dataset, Finding, Network
from ..views import Grid, Lines, Table


@lens()
def rsa(
    network: Network,
    data: Dataset,
    *,
    layers: Annotated[int, Between(0, 1000)] = 12,
    limit: Annotated[int, Between(4, 2000)] = 200,
    measure: Literal["correlation", "cosine", "euclidean"] = "correlation",
    shuffles: Annotated[int, Between(20, 5000)] = 200,
    seed: int = 0,
) -> Finding:
    """Which pictures does each layer find alike: those with like pixels, or those of one class?

    Representational similarity analysis. A layer's dissimilarities of all pairs of pictures are compared, by
    Spearman's rank correlation, with those of the input and with those of a code that knows the class alone (0 for
    two of a class, 1 for two others; as its pairs are tied, even a perfect code stays below 1: see "ceiling").

    Numbers: for the input (first row) and each layer, "category" and "input" (correlation with either); "null"
    (shuffles × rows: "category" with the labels shuffled) and "bar" (its 95th percentile); "category_shuffled",
    "input_shuffled" (the same network with each weight tensor's values shuffled); "between" (rows × rows: layers with
    each other); "classes" (rows × classes × classes: mean dissimilarity, for the classes that have two pictures at
    least); "ceiling" (the highest "category" that any code can have: all pairs of one class nearer than all others);
    "pictures" (which were used).

    Options:
        layers: how many layers, spread from the first to the last; 0 for all. Those that only pass on what they get are left out.
        limit: how many pictures, drawn at random.
        measure: how unlike two codes are: 1 − Pearson's correlation, 1 − cosine, or Euclidean distance.
        shuffles: how many times the labels are shuffled for the null.
        seed: of the drawing and the shuffling.

    Raises NetworkError for a network without layers to compare, UsageError for one that reads text, or pictures that are all of one class or all of different ones.
    Source: Kriegeskorte, Mur and Bandettini (2008), "Representational similarity analysis".

    >>> import neuralmine as nm
    >>> seen = nm.look("rsa", nm.load("digits"), nm.datasets.load("digits"), limit=100, shuffles=20).numbers
    >>> round(float(seen["input"][0]), 6), bool(seen["category"][-1] > seen["category"][0])
    (1.0, True)
    """
    if network.domain == "tokens":
        raise UsageError("This network reads text; pictures are compared here.", "Load a network that takes pictures.")
    generator = np.random.default_rng(seed)
    chosen = np.sort(generator.permutation(len(data))[:limit])
    images, labels = np.asarray(data.images[chosen]), np.asarray(data.labels)[chosen]
    wanted = of_classes(labels)
    if len(labels) < 3 or wanted.min() == wanted.max():
        raise UsageError(
            f"The {len(labels)} pictures are all of one class, or no two are of the same.",
            "Give several pictures of at least two classes.",
        )
    names = layer_names(network, images, layers)
    pairs, twins = [], []
    for into, net in over([(pairs, network), (twins, shuffled_twin(network, seed))], "network"):
        into += [dissimilarity(images, measure), *(dissimilarity(c, measure) for _, c in codes_by_layer(net, images, names))]  # fmt: skip
    ranks, other = (np.stack([rank_vector(one) for one in many]) for many in (pairs, twins))
    of_class = rank_vector(wanted)
    category, between = ranks @ of_class, ranks @ ranks.T
    null = np.stack([ranks @ rank_vector(of_classes(generator.permutation(labels))) for _ in range(shuffles)])
    bar = np.quantile(null, 0.95, axis=0)
    ceiling = float(rank_vector(np.argsort(np.argsort(wanted, kind="stable"))) @ of_class)
    shown = [one for one in np.unique(labels) if (labels == one).sum() > 1]
    classes = np.stack([_by_class(one, labels, shown) for one in pairs])
    input_ = between[0]
    best = int(category[1:].argmax()) + 1
    crossing = next((i for i in range(1, len(category)) if category[i] > input_[i]), None)
    rows = ["input", *names]
    lost = bool(input_[-1] < input_[1])
    x = np.arange(len(rows))
    return Finding(
        {
            "category": category, "input": input_, "null": null, "bar": bar, "category_shuffled": other @ of_class,
            "input_shuffled": other @ ranks[0], "between": between, "classes": classes, "ceiling": np.array(ceiling),
            "pictures": chosen,
        },
        (
            Lines("what each layer finds alike", x,
                  {"same class": category, "like pixels": input_, "same class, weights shuffled": other @ of_class, "like pixels, weights shuffled": other @ ranks[0]},
                  "layer (0 is the input)", "rank correlation"),
            Table("layer by layer", ("layer", "same class", "by chance, 95 %", "like pixels"),
                  tuple((name, float(category[i]), float(bar[i]), float(input_[i])) for i, name in enumerate(rows))),
            *(
                Grid(f"how unlike the classes are in {rows[i]}", classes[i], "magnitude", None,
                     tuple(data.classes[k] for k in shown), tuple(data.classes[k] for k in shown))
                for i in (0, best) if 1 < len(shown) <= 40
            ),
        ),
        (
            Check("the classes stand out more than in the input", float(category[best]), float(category[0]), None, bool(category[best] > category[0]),
                  f"Rank correlation with the classes in {rows[best]}, the best of {len(names)} layers; the null is the input itself."),
            Check("more than with shuffled weights", float(category[best]), float((other @ of_class)[1:].max()), None, bool(category[best] > (other @ of_class)[1:].max()),
                  "The null is the best layer of the same network with each weight tensor's values shuffled."),
            Check("likeness of pixels is given up", float(input_[-1]), float(input_[1]), None, lost,
                  f"Rank correlation with the input in {rows[-1]}, the last layer; beside it the first layer, {rows[1]}."),
        ),
        summary=f"Same class: {category[0]:.3f} in the input, {category[best]:.3f} in {rows[best]} (of at most {ceiling:.3f}; by chance {bar[best]:.3f}). Like pixels: "
        f"{input_[1]:.3f} in {rows[1]}, {input_[-1]:.3f} in {rows[-1]}. "
        + (f"From {rows[crossing]} on the class counts more than the pixels. " if crossing else "The class never counts more than the pixels. ")
        + f"{len(labels)} pictures. {data.note}".rstrip(),
        provenance={"layers": names},
    )  # fmt: skip


def _by_class(pairs: np.ndarray, labels: np.ndarray, shown: list[int]) -> np.ndarray:
    whole = np.zeros((len(labels), len(labels)))
    whole[np.triu_indices(len(labels), 1)] = pairs
    whole += whole.T
    belongs = np.stack([labels == one for one in shown]).astype(np.float64) if shown else np.zeros((0, len(labels)))
    count = np.outer(belongs.sum(1), belongs.sum(1)) - np.diag(belongs.sum(1))  # a picture is no pair with itself
    return belongs @ whole @ belongs.T / np.maximum(count, 1)
