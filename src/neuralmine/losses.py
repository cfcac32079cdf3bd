"""How wrong a network is, image by image: the essay's squared loss and cross-entropy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import DataError, UnknownName

if TYPE_CHECKING:
    import torch

LOSSES = {
    "squared": "for each output (activation − ideal)², added up over the outputs",
    "cross_entropy": "−log of the probability (softmax of the outputs) given to the right class",
}


def ideal(output: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """What each output should say, b × outputs: 1 at the right class, 0 elsewhere.

    A network with one output answers "is it the second class?", so its ideal is the label itself, 0 or 1.
    Raises DataError when a label has no output.
    """
    import torch

    outputs = output.shape[1]
    highest = int(labels.max()) if len(labels) else 0
    if outputs == 1 and highest <= 1:
        return labels[:, None].to(output.dtype)
    if highest >= outputs:
        raise DataError(
            f"A label is class {highest}, but the network has {outputs} outputs.",
            "Train a network with one output for each class, or leave that class out.",
        )
    return torch.nn.functional.one_hot(labels.long(), outputs).to(output.dtype)


def per_output(name: str, output: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Each output's part of the loss, b × outputs. Added up over the outputs it is the image's loss.

    `name` is one of LOSSES; for "cross_entropy" the outputs are logits and only the right class has a part.
    Raises UnknownName for another loss.

    >>> import torch
    >>> per_output("squared", torch.tensor([[0.5, 0.25]]), torch.tensor([0])).tolist()
    [[0.25, 0.0625]]
    """
    if name == "squared":
        return (output - ideal(output, labels)) ** 2
    if name == "cross_entropy":
        return -output.log_softmax(1) * ideal(output, labels)
    raise UnknownName("loss", name, LOSSES)


def mean_loss(name: str, output: torch.Tensor, labels: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
    """The set's loss divided by the number of images: what training lowers.

    With label smoothing that share of the ideal is spread evenly over the classes (a network of one output has two).
    """
    if not smoothing:
        return per_output(name, output, labels).sum() / len(labels)
    even = 1 / max(output.shape[1], 2)
    wanted = (1 - smoothing) * ideal(output, labels) + smoothing * even
    if name == "squared":
        return ((output - wanted) ** 2).sum() / len(labels)
    return -(output.log_softmax(1) * wanted).sum() / len(labels)


def chosen(output: torch.Tensor) -> torch.Tensor:
    """The class each image is said to be: the brightest output; with one output, whether it is above 0.5."""
    return (output[:, 0] > 0.5).long() if output.shape[1] == 1 else output.argmax(1)
