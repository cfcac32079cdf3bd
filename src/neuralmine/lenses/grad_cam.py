from __future__ import annotations

from typing import Any

import numpy as np

from ..attribution import as_maps, explained, frozen, last_spatial, question, scores_of
from ..errors import UsageError
from ..lens import lens
from ..tracing import trace
from ..types import PREDICTED, Finding, Input, Network, Target


@lens(reads="pixels")
def grad_cam(
    network: Network,
    image: Input,
    *,
    layer: str = "",
    target: Target = PREDICTED,
    evidence: bool = True,
    seed: int = 0,
) -> Finding:
    """Where in the picture the evidence for one class lies, as a layer's maps see it.

    Each map is weighted by its mean gradient and all are added up; what is below 0 speaks against the class and is
    cut off, as in the paper. Works on vision transformers too, on the tokens of the patches.
    Numbers: "map" (rows × columns of the layer), "signed" (before the cut), "weights" (one a map).

    Options:
        layer: which layer; without one, the last with maps that still have a place (the summary says which and why).
        target: the class, by name or number; without one, what the network says.
        evidence: also measure whether the map depends on the weights and beats random orders.
        seed: of the shuffled weights and the random orders.

    Raises UnknownName for a class or a layer that does not exist, UsageError for a layer without rows and columns or
    one that no score depends on, NetworkError for a network that has none at all.
    Source: Selvaraju and others (2017), "Grad-CAM".

    >>> import torch, neuralmine as nm
    >>> net = nm.load(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
    ...               torch.nn.Flatten(), torch.nn.Linear(4, 2)), shape=(3, 12, 12))
    >>> nm.look("grad_cam", net, np.full((3, 12, 12), 0.5), evidence=False).numbers["map"].shape
    (10, 10)
    """
    chosen, why = (network.layer(layer), "") if layer else last_spatial(network)
    asked = question(network, image, target)

    def signed(of: Network) -> tuple[np.ndarray, np.ndarray]:
        found, weights = class_maps(of, asked.encoded, chosen.name, [asked.index])
        return found[0].cpu().numpy(), weights[0].cpu().numpy()

    found, weights = signed(network)
    said = f"Layer {chosen.name}" + (f": {why}." if why else ".")
    if not (found > 0).any():
        said += " Nothing in it speaks for this class: all that is left after the cut is 0."
    return explained(
        network, asked, np.maximum(found, 0), lambda other: np.maximum(signed(other)[0], 0),
        name=f"Grad-CAM at {chosen.name}", scale="magnitude", numbers={"signed": found, "weights": weights},
        evidence=evidence, seed=seed, summary=said,
    )  # fmt: skip


def class_maps(network: Network, encoded: Any, layer: str, targets: list[int]) -> tuple[Any, Any]:
    """Σ αc Ac for each picture of a batch (b × rows × columns, nothing cut off), and the weights α (b × maps).

    The graph begins at the layer: what comes before it keeps nothing, and the backward pass ends there.
    """
    import torch

    start: list[torch.Tensor] = []

    def begin(values: torch.Tensor) -> torch.Tensor:
        start.append(values.detach().requires_grad_())
        # A layer that works in place must not write into the maps: it gets a tensor of its own.
        return start[0].view_as(start[0])

    with frozen(network):
        output = scores_of(trace(network, encoded, layers=[], output=True, edits={layer: begin}, grad=True).output)
        slopes = None
        if output.requires_grad:
            wanted = output[range(len(targets)), targets].sum()
            (slopes,) = torch.autograd.grad(wanted, start[0], allow_unused=True)
    if slopes is None:
        raise UsageError(f"No score depends on what {layer} puts out: it is handed out beside the way.",
                         "Choose a layer before it, or leave `layer` out.")  # fmt: skip
    maps, slopes = as_maps(start[0].detach()), as_maps(slopes)
    weights = slopes.flatten(2).mean(2)
    return torch.einsum("bc,bchw->bhw", weights, maps), weights
