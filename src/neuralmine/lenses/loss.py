from __future__ import annotations

from typing import Literal

import numpy as np

from ..lens import lens
from ..losses import LOSSES, chosen, ideal, per_output
from ..tracing import trace
from ..types import Check, Dataset, Finding, Network
from ..views import Bars, Table


@lens()
def loss(
    network: Network, data: Dataset, *, kind: Literal["own", "squared", "cross_entropy"] = "own", worst: int = 12
) -> Finding:
    """How wrong the network is: for each output, added up for each image, added up for the whole set.

    Numbers: "per_output" (images × outputs), "per_image", "total" (the essay's sum over all images), "mean"
    (total ÷ images: what training lowers), "observed" and "ideal" (images × outputs), "said" (the class chosen).

    Options:
        kind: the network's own loss, or another one.
        worst: how many of the most wrong images to list.

    Raises DataError when the labels do not fit the network's outputs.

    >>> import neuralmine as nm
    >>> finding = nm.look("loss", nm.load("digits"), nm.datasets.load("digits"))
    >>> bool(abs(finding.numbers["per_output"].sum() - finding.numbers["total"]) < 1e-9)
    True
    """
    import torch
    from torch.nn import functional

    name = network.loss if kind == "own" else kind
    labels = torch.as_tensor(np.asarray(data.labels, dtype=np.int64))
    output = trace(network, data.images).output.detach()
    with torch.no_grad():
        parts = per_output(name, output, labels).cpu().double().numpy()
        wanted = ideal(output, labels)
        of_torch = functional.mse_loss if name == "squared" else functional.cross_entropy
        own = float(of_torch(output.double(), wanted.double(), reduction="sum"))
    per_image = parts.sum(1)
    total = float(per_image.sum())
    said = chosen(output).cpu().numpy()
    order = np.argsort(-per_image)[:worst]
    rows = tuple((int(i), data.classes[data.labels[i]], data.classes[said[i]], float(per_image[i])) for i in order)
    names = network.labels if parts.shape[1] == len(network.labels) else tuple(str(i) for i in range(parts.shape[1]))
    return Finding(
        {
            "per_output": parts,
            "per_image": per_image,
            "total": np.array(total),
            "mean": np.array(total / len(data)),
            "observed": output.cpu().numpy(),
            "ideal": wanted.cpu().numpy(),
            "said": said,
        },
        (
            Bars("each output's part of the loss", names, parts.sum(0)),
            Table("most wrong images", ("image", "is", "network says", "loss"), rows),
        ),
        (
            Check(
                "the parts add up to torch's own loss",
                abs(own - total),
                passed=abs(own - total) <= 1e-5 * max(1.0, total),
                meaning="The difference between all parts added and what torch's own function says of the same outputs.",
            ),
        ),
        summary=f"{LOSSES[name].capitalize()}: {total:.6g} over {len(data)} images, {total / len(data):.6g} an image. {data.note}",
    )
