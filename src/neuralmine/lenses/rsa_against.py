from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from ..attribution import shuffled_twin
from ..codes import codes_by_layer, dissimilarity, layer_names, rank_vector
from ..dissimilarities import ceiling, measured, places, size, tau_a
from ..errors import DataError, UsageError
from ..lens import lens
from ..progress import over
from ..types import Between, Check, Dataset, Finding, Network
from ..views import Grid, Lines, Table


@lens()
def rsa_against(
    network: Network,
    data: Dataset,
    *,
    matrix: str,
    array: str = "",
    order: str = "",
    layers: Annotated[int, Between(0, 1000)] = 12,
    measure: Literal["correlation", "cosine", "euclidean"] = "correlation",
    shuffles: Annotated[int, Between(20, 10000)] = 1000,
    bootstraps: Annotated[int, Between(20, 5000)] = 200,
    seed: int = 0,
) -> Finding:
    """Do the layers find the same pictures alike as your matrix: a brain, people's judgement, another model?

    Representational similarity analysis with dissimilarities of your own. Each layer's dissimilarities of all pairs of
    pictures are compared, by Spearman's rank correlation, with those of each subject in the file; the mean over
    subjects counts. With two subjects or more the noise ceiling says what the true code would reach.

    Numbers: for the input (first row) and each layer, "agreement" (mean correlation over subjects), "by_subject"
    (rows × subjects), "tau_a" (the same by Kendall's τ-a), "interval" (rows × 2: 95 %, pictures drawn again with
    replacement), "null" (shuffles × rows: the matrix's pictures shuffled), "shuffled_weights" (the same network with
    each weight tensor's values shuffled); "ceiling" (at least, at most; empty for one subject); "order" (which picture
    of the data stands in each row of the matrix).

    Options:
        matrix: file with the dissimilarities: .npy, .npz, .csv or .mat; pictures × pictures or condensed, one subject or several.
        array: which array of a .npz or .mat file; needed when it holds several.
        order: text file that names the picture of each row of the matrix, one a line; without it they are in the order of the folder (by name: 10.png comes before 2.png).
        layers: how many layers, spread from the first to the last; 0 for all. Those that only pass on what they get are left out.
        measure: how unlike two codes are: 1 − Pearson's correlation, 1 − cosine, or Euclidean distance.
        shuffles: how many times the matrix's pictures are shuffled for the null.
        bootstraps: how many times pictures are drawn again for the intervals.
        seed: of the shuffling and the drawing.

    Raises DataError for a file that holds no dissimilarities or another number of pictures, NetworkError for a
    network without layers to compare, UsageError for one that reads text.
    Source: Kriegeskorte, Mur and Bandettini (2008), "Representational similarity analysis"; Nili and others (2014),
    "A toolbox for representational similarity analysis", for the noise ceiling.

    >>> import tempfile
    >>> import neuralmine as nm
    >>> data = nm.datasets.load("digits").take(slice(0, 40))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/classes.npy", data.labels[:, None] != data.labels)
    ...     seen = nm.look("rsa_against", nm.load("digits"), data, matrix=f"{folder}/classes.npy", shuffles=20, bootstraps=20)
    >>> bool(seen.numbers["agreement"][-1] > seen.numbers["agreement"][0])
    True
    """
    if network.domain == "tokens":
        raise UsageError("This network reads text; pictures are compared here.", "Load a network that takes pictures.")
    subjects = measured(matrix, array)
    count = size(subjects.shape[1])
    rows = _order(order, data)
    if len(rows) != count:
        raise DataError(
            f"{Path(matrix).name} has {count} pictures, {'the order' if order else data.name} {len(rows)}.",
            "Give the pictures of the matrix and no others, or name those of its rows in a file and give order=FILE.",
        )
    images = np.asarray(data.images[rows])
    names = layer_names(network, images, layers)
    generator = np.random.default_rng(seed)
    ours, twins = [], []
    for into, net in over([(ours, network), (twins, shuffled_twin(network, seed))], "network", until=0.6):
        into += [dissimilarity(images, measure), *(dissimilarity(c, measure) for _, c in codes_by_layer(net, images, names))]  # fmt: skip
    ranks, theirs = (np.stack([rank_vector(one) for one in many]) for many in (ours, subjects))
    by_subject = ranks @ theirs.T
    agreement, middle = by_subject.mean(1), theirs.mean(0)
    shuffled = np.stack([rank_vector(one) for one in twins]) @ middle
    # A shuffle of pictures moves ranks but makes none anew, and correlations with subjects add up.
    at, upper = places(count), np.triu_indices(count, 1)
    null = np.empty((shuffles, len(ranks)))
    for i in range(shuffles):
        mixed = generator.permutation(count)
        null[i] = ranks @ middle[at[mixed[upper[0]], mixed[upper[1]]]]
    again = np.empty((bootstraps, len(ranks)))
    for i in over(range(bootstraps), "drawing"):
        drawn = generator.integers(0, count, count)
        one, other = drawn[upper[0]], drawn[upper[1]]
        pairs = at[one, other][one != other]  # a picture is no pair with itself
        again[i] = np.stack([rank_vector(layer[pairs]) for layer in ours]) @ np.mean([rank_vector(subject[pairs]) for subject in subjects], 0)  # fmt: skip
    interval = np.quantile(again, [0.025, 0.975], axis=0).T
    bounds = ceiling(subjects)
    bar = np.quantile(null, 0.95, axis=0)
    best = int(agreement[1:].argmax()) + 1
    by_chance = float(np.quantile(null[:, 1:].max(1), 0.95))
    where = ["input", *names]
    x = np.arange(len(where))
    curves = {"this network": agreement, "weights shuffled": shuffled, "by chance, 95 %": bar}
    if bounds:
        curves |= {"noise ceiling, at least": np.full(len(x), bounds[0]), "noise ceiling, at most": np.full(len(x), bounds[1])}  # fmt: skip
    low, high = interval[best]
    reach = (
        f"The true code would reach {bounds[0]:.3f} to {bounds[1]:.3f} ({len(subjects)} subjects)."
        if bounds
        else "One subject: no noise ceiling can be measured."
    )
    return Finding(
        {
            "agreement": agreement, "by_subject": by_subject, "interval": interval, "null": null, "shuffled_weights": shuffled,
            "tau_a": np.array([np.mean([tau_a(one, other) for other in subjects]) for one in ours]),
            "ceiling": np.array(bounds or ()), "order": rows,
        },
        (
            Lines("agreement with your matrix, layer by layer", x, curves, "layer (0 is the input)", "rank correlation"),
            Table("layer by layer", ("layer", "agreement", "from", "to", "by chance, 95 %", "weights shuffled"),
                  tuple((one, float(agreement[i]), *map(float, interval[i]), float(bar[i]), float(shuffled[i])) for i, one in enumerate(where))),
            *(
                Grid(title, pairs[at] * (1 - np.eye(count)), "magnitude")
                for title, pairs in ((f"how unlike {where[best]} finds the pictures", ours[best]), ("your matrix (mean of the subjects)", subjects.mean(0)))
                if count <= 200
            ),
        ),
        (
            Check("more than by chance", float(agreement[best]), by_chance, (float(low), float(high)), bool(agreement[best] > by_chance),
                  f"{where[best]}, the best of {len(names)} layers, and its 95 % interval over pictures; the null is the 95th percentile of the best layer with the matrix's pictures shuffled."),
            Check("more than pixels", float(agreement[best]), float(agreement[0]), None, bool((again[:, best] > again[:, 0]).mean() > 0.975),
                  f"In {(again[:, best] > again[:, 0]).mean():.0%} of the drawings of pictures; 97.5 % are asked for."),
            Check("more than with shuffled weights", float(agreement[best]), float(shuffled[1:].max()), None, bool(agreement[best] > shuffled[1:].max()),
                  "The null is the best layer of the same network with each weight tensor's values shuffled."),
            *(
                [Check("reaches the noise ceiling", float(agreement[best]), bounds[0], None, bool(agreement[best] >= bounds[0]),
                       f"The ceiling lies between {bounds[0]:.3f} and {bounds[1]:.3f}; from the lower bound on a layer explains all that these subjects share.")]
                if bounds else []
            ),
        ),
        summary=f"{where[best]} agrees best, {agreement[best]:.3f} ({low:.3f} to {high:.3f} over pictures); the last layer {agreement[-1]:.3f}, pixels {agreement[0]:.3f}, "
        f"weights shuffled at best {shuffled[1:].max():.3f}, by chance {by_chance:.3f}. {reach} {count} pictures.",
        provenance={"layers": names, "matrix": Path(matrix).name},
    )  # fmt: skip


def _order(path: str, data: Dataset) -> np.ndarray:
    if not path:
        return np.arange(len(data))
    files = getattr(data.images, "files", None)
    if files is None:
        raise UsageError("These pictures have no file names.", "Leave out order, and put them in the matrix's order.")
    try:
        wanted = [line.strip() for line in Path(path).expanduser().read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}.", "Give a text file with one file name a line.") from None
    at = {file.name: i for i, file in enumerate(files)}
    missing, twice = [one for one in wanted if Path(one).name not in at], len(set(wanted)) < len(wanted)
    if missing or twice or len(at) < len(files):
        what = f"names {missing[0]!r}, which is not in {data.name}" if missing else "or the folder has a name twice"
        raise DataError(f"{path} {what}.", "Name each picture of the folder once, one file name a line.")
    return np.array([at[Path(one).name] for one in wanted])
