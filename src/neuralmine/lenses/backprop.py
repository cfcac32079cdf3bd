from __future__ import annotations

from typing import Annotated

import numpy as np

from ..dense import WeightedSum, weighted_sums
from ..errors import UsageError
from ..lens import lens
from ..losses import mean_loss, per_output
from ..types import PREDICTED, Between, Check, Finding, Input, Network, Target
from ..views import Grid, Table


@lens()
def backprop(
    network: Network,
    image: Input,
    *,
    target: Target = PREDICTED,
    lr: Annotated[float, Between(0, 1000)] = 0.1,
    checked: Annotated[int, Between(1, 100_000)] = 24,
    seed: int = 0,
) -> Finding:
    """Whose fault? One image's error sent back through the network to every weight.

    For each layer L of weighted sums, numbers "L.error" (dLoss/d activation), "L.slope" (the activation's slope),
    "L.delta" (dLoss/d sum = error × slope), "L.inputs", "L.gradient" (neurons × inputs: delta × input, each
    weight's share) and "L.sent" (the error sent back to the inputs); also "observed", "ideal", "per_output", "loss",
    and "loss_after" one gradient-descent step of rate lr. Checks: the products against autograd, and the shares
    against central differences (step 1e-5, on a float64 copy) for `checked` weights, half of them the largest.

    Options:
        target: what the image really is (a label or its index); the network's own choice when not given.
        lr: the learning rate of the update that is shown.
        checked: how many weights to check by finite differences.
        seed: which weights are checked beside the largest ones.

    Raises UsageError for an unknown target, NetworkError for a network without weighted sums.
    Source: Rumelhart, Hinton and Williams (1986), Nature 323, 533.

    >>> import neuralmine as nm
    >>> finding = nm.look("backprop", nm.load("digits"), nm.datasets.load("digits").images[201], target="5")
    >>> finding.numbers["hidden1.gradient"].shape
    (16, 64)
    """
    import torch

    sums, encoded, output = weighted_sums(network, image)
    if output.ndim != 2 or len(encoded) != 1:
        raise UsageError("Backpropagation is shown for one image at a time.", "Give a single image.")
    label = _label(network, output, target)
    labels = torch.tensor([label])
    loss = mean_loss(network.loss, output, labels)
    parts = per_output(network.loss, output, labels)[0].detach().cpu().numpy()
    tensors = [t for w in sums for t in (w.activations, w.sums, w.inputs, w.linear.weight)]
    flowing = torch.autograd.grad(loss, tensors, allow_unused=True, retain_graph=True)
    numbers: dict[str, np.ndarray] = {}
    difference = 0.0
    for w, (error, delta, sent, gradient) in zip(sums, zip(*[iter(flowing)] * 4, strict=True), strict=True):
        error, delta, sent, gradient = (_array(g, t) for g, t in zip(
            (error, delta, sent, gradient), (w.activations, w.sums, w.inputs, w.linear.weight), strict=True))  # fmt: skip
        inputs = w.inputs[0].detach().cpu().numpy()
        slope = _slope(w)
        product = np.outer(error[0] * slope, inputs)
        if sum(other.linear is w.linear for other in sums) == 1:
            difference = max(difference, float(np.abs(product - gradient).max(initial=0)))
        numbers |= {
            f"{w.block}.error": error[0], f"{w.block}.slope": slope, f"{w.block}.delta": delta[0],
            f"{w.block}.inputs": inputs, f"{w.block}.gradient": gradient, f"{w.block}.sent": sent[0],
        }  # fmt: skip
    gap, count = _central_differences(network, encoded, labels, sums, numbers, checked, seed)
    numbers |= {
        "observed": output[0].detach().cpu().numpy(),
        "ideal": _ideal(output, labels),
        "per_output": parts,
        "loss": np.array(loss.item()),
        "loss_after": np.array(_loss_after(network, encoded, labels, lr)),
        "target": np.array(label),
    }
    largest = _largest(sums, numbers)
    return Finding(
        numbers,
        (
            *(Grid(f"{w.block}: each weight's share", numbers[f"{w.block}.gradient"], "signed") for w in sums),
            Table("largest shares", ("layer", "neuron", "input", "delta", "× value", "= share", "update"), tuple(
                (*row, -lr * float(row[-1])) for row in largest)),
        ),
        (
            Check("delta × input equals autograd", difference, passed=difference <= 1e-7 * max(1.0, _scale(numbers)),
                  meaning="Largest difference over all weights between the spelled-out product and torch's own gradient."),
            Check("shares equal central differences", gap, passed=gap <= 1e-5,
                  meaning=f"Largest relative difference over {count} weights, each moved a little up and down."),
        ),
        summary=(
            f"Loss {loss.item():.6g} for {network.labels[label]}; after one step of rate {lr:g} it is "
            f"{float(numbers['loss_after']):.6g}."
        ),
        provenance={"blocks": [w.block for w in sums], "from": [w.source for w in sums], "lr": lr},
    )  # fmt: skip


def _label(network: Network, output: object, target: str | int | None) -> int:
    from ..errors import UnknownName
    from ..losses import chosen

    if target is None:
        return int(chosen(output)[0])  # type: ignore[arg-type]
    if str(target) in network.labels:
        return network.labels.index(str(target))
    if isinstance(target, int) and 0 <= target < len(network.labels):
        return target
    raise UnknownName("label", target, network.labels)


def _array(gradient: object, like: object) -> np.ndarray:
    import torch

    tensor = torch.zeros_like(like) if gradient is None else gradient  # type: ignore[call-overload]
    return tensor.detach().cpu().numpy()  # type: ignore[union-attr]


def _slope(weighted: WeightedSum) -> np.ndarray:
    """The activation's slope at each sum: its own derivative by autograd, one for each neuron."""
    import torch

    if weighted.activations is weighted.sums:
        return np.ones(weighted.sums.shape[1])
    (slope,) = torch.autograd.grad(weighted.activations.sum(), weighted.sums, retain_graph=True)
    return slope[0].detach().cpu().numpy()


def _ideal(output: object, labels: object) -> np.ndarray:
    from ..losses import ideal

    return ideal(output, labels)[0].detach().cpu().numpy()  # type: ignore[arg-type]


def _scale(numbers: dict[str, np.ndarray]) -> float:
    return max(float(np.abs(v).max(initial=0)) for k, v in numbers.items() if k.endswith(".gradient"))


def _central_differences(
    network: Network, encoded: object, labels: object, sums: list[WeightedSum], numbers: dict[str, np.ndarray], checked: int, seed: int
) -> tuple[float, int]:  # fmt: skip
    """The largest gap between a share and (loss(w + h) − loss(w − h)) / 2h, relative to the layer's largest share."""
    import copy

    import torch

    module = copy.deepcopy(network.module).double().eval()
    inputs = encoded.double()  # type: ignore[attr-defined]
    names = {part: name for name, part in network.module.named_modules()}
    generator, step, gap, count = np.random.default_rng(seed), 1e-5, 0.0, 0
    for share, weighted in zip(_shares(checked, len(sums)), sums, strict=True):
        gradient = numbers[f"{weighted.block}.gradient"]
        order = np.argsort(-np.abs(gradient), axis=None)
        extra = generator.permutation(gradient.size)[: share - share // 2]
        weight = module.get_parameter(f"{names[weighted.linear]}.weight")
        for flat in {*order[: share // 2].tolist(), *extra.tolist()}:
            where = np.unravel_index(flat, gradient.shape)
            value, losses = weight[where].item(), []
            for moved in (value + step, value - step):
                with torch.no_grad():
                    weight[where] = moved
                    losses.append(float(mean_loss(network.loss, module(inputs), labels)))  # type: ignore[arg-type]
            with torch.no_grad():
                weight[where] = value
            measured = (losses[0] - losses[1]) / (2 * step)
            gap = max(gap, abs(measured - float(gradient[where])) / max(float(np.abs(gradient).max()), 1e-3))
            count += 1
    return gap, count


def _shares(total: int, parts: int) -> list[int]:
    return [max(1, total // parts + (i < total % parts)) for i in range(parts)]


def _loss_after(network: Network, encoded: object, labels: object, lr: float) -> float:
    import copy

    import torch

    module = copy.deepcopy(network.module).eval()
    loss = mean_loss(network.loss, module(encoded), labels)  # type: ignore[arg-type]
    with torch.no_grad():
        parameters = [p for p in module.parameters() if p.requires_grad]
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True
        ):
            if gradient is not None:
                parameter -= lr * gradient
        return float(mean_loss(network.loss, module(encoded), labels))  # type: ignore[arg-type]


def _largest(sums: list[WeightedSum], numbers: dict[str, np.ndarray]) -> list[tuple]:
    rows = []
    for w in sums:
        gradient = numbers[f"{w.block}.gradient"]
        for flat in np.argsort(-np.abs(gradient), axis=None)[:6]:
            unit, given = (int(i) for i in np.unravel_index(flat, gradient.shape))
            delta, value = float(numbers[f"{w.block}.delta"][unit]), float(numbers[f"{w.block}.inputs"][given])
            rows.append((w.block, unit, given, delta, value, float(gradient[unit, given])))
    return rows
