from __future__ import annotations

import numpy as np

from ..attribution import explained, input_gradient, question, rectified
from ..lens import lens
from ..types import PREDICTED, Finding, Input, Network, Target


@lens(reads="pixels")
def guided_backprop(
    network: Network, image: Input, *, target: Target = PREDICTED, evidence: bool = True, seed: int = 0
) -> Finding:
    """Which pixels excite the class along lit paths only: gradients that stay positive through every lit ReLU.

    Beautifully sharp, and known to show the picture more than the network: the evidence says how much.
    Numbers: "gradient" (the network's input shape), "map" (rows × columns: the largest size over the colours), and
    what the evidence adds. ReLU functions count as well as ReLU modules; in a network without any (GELU, sigmoid)
    this is the plain gradient, and the summary says so.

    Options:
        target: the class, by name or number; without one, what the network says.
        evidence: also measure whether the map depends on the weights and beats random orders.
        seed: of the shuffled weights and the random orders.

    Raises UnknownName for a class that does not exist, NetworkError for a network that names no classes.
    Source: Springenberg, Dosovitskiy, Brox and Riedmiller (2015), "Striving for simplicity".

    >>> import torch, neuralmine as nm
    >>> net = nm.load(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(),
    ...               torch.nn.Linear(400, 2)), shape=(3, 12, 12))
    >>> nm.look("guided_backprop", net, np.full((3, 12, 12), 0.5), evidence=False).numbers["map"].shape
    (12, 12)
    """
    asked = question(network, image, target)
    met = 0

    def gradient(of: Network) -> np.ndarray:
        nonlocal met
        with rectified(guided=True) as count:
            found = input_gradient(of, asked.encoded, asked.index)[0].cpu().numpy()
        met = count[0]
        return found

    def importance(of: Network) -> np.ndarray:
        found = gradient(of)
        return np.abs(found).max(0) if found.ndim == 3 else np.abs(found)

    found = gradient(network)
    drawn = np.abs(found).max(0) if found.ndim == 3 else np.abs(found)
    return explained(
        network, asked, drawn, importance, name="guided backprop", scale="magnitude", numbers={"gradient": found},
        evidence=evidence, seed=seed, summary="" if met else "There is no ReLU here, so this is the plain gradient.",
    )  # fmt: skip
