from __future__ import annotations

from typing import Annotated

import numpy as np

from ..lens import lens
from ..tracing import trace
from ..types import Between, Check, Finding, Input, Network
from ..views import Bars


@lens()
def prediction(network: Network, image: Input, *, count: Annotated[int, Between(1, 1000)] = 5) -> Finding:
    """What the network says of one input: its highest scores.

    Numbers: "scores" (the highest first: probabilities after a softmax, or activations), "index" (their classes),
    "all" (every class's score).

    Options:
        count: how many classes.

    Raises NetworkError for a network that names no classes.

    >>> import neuralmine as nm
    >>> nm.look("prediction", nm.load("digits"), nm.datasets.load("digits").images[0], count=1).numbers["index"]
    array([0])
    """
    said = network.decode(trace(network, network.encode(image)[:1], layers=[], output=True).output)[0]
    order = np.argsort(-said.scores, kind="stable")[:count]
    names = tuple(said.labels[i] for i in order)
    return Finding(
        {"scores": said.scores[order], "index": order, "all": said.scores},
        (Bars("what the network says", names, said.scores[order], 0, said.measure, 1.0 if said.measure == "probability" else None),),
        (
            Check(f"{said.measure} of the answer", said.score, 1 / len(said.scores), None, None,
                  "Beside it what each class would get if all were alike. A high score is no proof of being right."),
        ),
        f"{said.label}: {said.measure} {said.score:.3g}.",
        provenance={"labels": list(names), "measure": said.measure},
    )  # fmt: skip
