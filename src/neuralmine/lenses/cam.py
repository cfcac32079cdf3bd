from __future__ import annotations

from typing import Any

import numpy as np

from ..attribution import explained, question, scores_of
from ..errors import NetworkError
from ..lens import lens
from ..tracing import trace
from ..types import PREDICTED, Check, Finding, Input, Network, Target


@lens(reads="pixels")
def cam(network: Network, image: Input, *, target: Target = PREDICTED, evidence: bool = True, seed: int = 0) -> Finding:
    """Where in the picture a class is seen, exactly: a map whose mean, plus the bias, is the class's score.

    Only networks that end in a global mean followed by one linear layer (or in one map a class followed by a mean)
    have such a map. Which layer it is, is not guessed but proved: its mean must give the network's own scores.
    Numbers: "map" (rows × columns of the layer, with sign), "bias".

    Options:
        target: the class, by name or number; without one, what the network says.
        evidence: also measure whether the map depends on the weights and beats random orders.
        seed: of the shuffled weights and the random orders.

    Raises NetworkError for a network that does not end so (use grad_cam), UnknownName for a class that does not exist.
    Source: Zhou, Khosla, Lapedriza, Oliva and Torralba (2016), "Learning deep features for discriminative localization".

    >>> import torch, neuralmine as nm
    >>> net = nm.load(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
    ...               torch.nn.Flatten(), torch.nn.Linear(4, 2)), shape=(3, 12, 12))
    >>> nm.look("cam", net, np.full((3, 12, 12), 0.5), evidence=False).checks[0].passed
    True
    """
    asked = question(network, image, target)
    layer, head = _ending(network, asked.encoded)
    found, bias = _map(network, asked.encoded, layer, head, asked.index)
    gap = abs(float(found.mean(dtype=np.float64)) + bias - asked.score)
    return explained(
        network, asked, found, lambda other: _map(other, asked.encoded, layer, head, asked.index)[0],
        name=f"class activation map at {layer}", scale="signed", numbers={"bias": np.array(bias)}, evidence=evidence, seed=seed,
        checks=(
            Check("mean of the map + bias = score", gap, None, None, gap <= 1e-5 * max(1.0, abs(asked.score)),
                  f"Distance from the network's own score {asked.score:.6g}."),
        ),
        summary=f"Layer {layer}" + (f", weighted by {head}." if head else ", which has one map a class."),
    )  # fmt: skip


def _ending(network: Network, encoded: Any) -> tuple[str, str]:
    """The last maps and the linear layer whose product is the scores; "" where the maps are the classes' own."""
    import torch

    maps = [layer for layer in network.layers if layer.dims == "b c h w" and layer.shape[2] * layer.shape[3] > 1]
    heads = [name for name, part in network.module.named_modules() if isinstance(part, torch.nn.Linear)]
    if maps:
        seen = trace(network, encoded, layers=[layer.name for layer in maps[-12:]], output=True)
        scores = scores_of(seen.output)
        close = 1e-4 * max(1.0, float(scores.abs().max()))
        for name in reversed(list(seen)):
            means = seen[name].value.mean((2, 3))
            if means.shape == scores.shape and float((means - scores).abs().max()) <= close:
                return name, ""
            for head in reversed(heads):
                part: Any = network.module.get_submodule(head)
                if part.weight.shape != (scores.shape[1], means.shape[1]):
                    continue
                with torch.no_grad():
                    if float((part(means) - scores).abs().max()) <= close:
                        return name, head
    raise NetworkError(
        "This network has no class activation map: it does not end in a global mean and one linear layer.",
        "Use grad_cam, which works on any layer with maps.",
    )


def _map(network: Network, encoded: Any, layer: str, head: str, index: int) -> tuple[np.ndarray, float]:
    import torch

    values = trace(network, encoded, layers=[layer])[layer].value[0]
    if not head:
        return values[index].cpu().numpy(), 0.0
    part: Any = network.module.get_submodule(head)
    with torch.no_grad():
        found = torch.einsum("c,chw->hw", part.weight[index], values)
    return found.cpu().numpy(), 0.0 if part.bias is None else float(part.bias[index].detach())
