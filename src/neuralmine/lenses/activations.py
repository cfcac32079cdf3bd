from __future__ import annotations

import numpy as np

from ..lens import lens
from ..tracing import trace
from ..types import Finding, Input, Network
from ..views import Bars, Grid


@lens()
def activations(network: Network, image: Input, *, largest: int = 64) -> Finding:
    """What every layer makes of one input: its values, and what the network says in the end.

    Numbers: one array for each layer, without the batch, named by the layer's address; "input"; "scores" (one
    for each label). Layers that cannot be looked into are named in the summary.

    Options:
        largest: draw layers of at most this many values as bars; larger ones are in the numbers only.

    Raises DataError when the input does not fit the network.

    >>> import neuralmine as nm
    >>> finding = nm.look("activations", nm.load("digits"), nm.datasets.load("digits").images[201])
    >>> finding.numbers["hidden1"].shape
    (16,)
    """
    seen = trace(network, image)
    numbers = {name: activation.numpy()[0] for name, activation in seen.items()}
    numbers["input"] = seen.input.detach().cpu().numpy()[0]
    views: list[object] = []
    if numbers["input"].ndim == 2:
        views.append(Grid("input", numbers["input"], scale="ink", limit=1.0))
    views += [
        Bars(name, tuple(str(i) for i in range(value.size)), value, signed=bool(value.min() < 0))
        for name, value in numbers.items()
        if name != "input" and value.ndim == 1 and value.size <= largest
    ]
    said = ""
    if isinstance(seen.output, type(seen.input)) and seen.output.ndim == 2:
        prediction = seen.prediction
        numbers["scores"] = np.asarray(prediction.scores, dtype=float)
        views.append(Bars("output", prediction.labels, numbers["scores"], prediction.index, prediction.measure, 1.0))
        said = f"The network says {prediction.label} ({prediction.measure} {prediction.score:.3f}). "
    left_out = ", ".join(f"{name} ({why})" for name, why in seen.untraced.items())
    summary = said + f"{len(seen)} layers traced." + (f" Not traced: {left_out}." if left_out else "")
    return Finding(numbers, tuple(views), summary=summary)
