from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from ..errors import NetworkError, UsageError
from ..lens import lens
from ..losses import mean_loss
from ..types import Between, Check, Dataset, Finding, Network
from ..views import Lines, Table

if TYPE_CHECKING:
    import torch

SHUFFLES = 5
FLAT, MOSTLY = 0.01, 0.95  # saturated: a slope below this share of the steepest, on more than this share of inputs
LOST, WEAK, BURST = 1e-6, 1e-3, 1e3  # the first layer's gradient as a share of the last's
HASTY, IDLE = 0.1, 1e-6  # a step's change as a share of the weights
_STEEPEST = {"Sigmoid": 0.25, "Tanh": 1.0}
_RECTIFIERS = ("ReLU", "ReLU6", "LeakyReLU", "ELU", "SELU", "CELU", "GELU", "SiLU", "Mish", "Hardswish", "Softplus")
_NORMS = ("BatchNorm", "LayerNorm", "GroupNorm", "InstanceNorm", "RMSNorm")


@lens()
def gradient_flow(
    network: Network,
    data: Dataset,
    *,
    lr: Annotated[float, Between(0, 1e6)] = 0.1,
    limit: Annotated[int, Between(0, 10_000_000)] = 128,
    seed: int = 0,
) -> Finding:
    """Does the error reach the first layer: how large are activations and gradients, layer by layer, and what is stuck?

    One forward and backward pass of the mean loss, as in training but without dropout (batch normalisation uses these
    images' own statistics). A layer is a module with weights of its own; its activation is the elementwise layer
    that follows it, else its own output. Numbers, one a layer in the order they run: "gradient" (root mean square of
    dLoss/d weight), "error" (of dLoss/d output, for one image's own loss), "activation", "weight" (root mean squares),
    "ratio" (lr × gradient ÷ weight: what a step of plain gradient descent changes), "dead" and "saturated" (units) and
    "units". Dead: the output of a rectifier (ReLU and its kin) is 0 on every image. Saturated: on more than 95 % of
    the images the slope of the sigmoid or tanh is below a hundredth of its steepest. The null is the same with each
    weight tensor's values shuffled, five times: "gradient_shuffled", "error_shuffled", "activation_shuffled"
    (5 × layers). Activations that are no module of their own (a function called in forward) are not seen.

    Options:
        lr: the learning rate that the ratio of update to weight is told for.
        limit: use at most so many images, chosen at random; 0 for all.
        seed: of that choice and of the shuffling.

    Raises UsageError for a network without weights that can be trained, or with a loss that is no number.

    Source: Glorot and Bengio 2010 (activations and gradients by layer); Hochreiter 1991 (vanishing gradients).

    >>> import neuralmine as nm
    >>> finding = nm.look("gradient_flow", nm.load("64-16-10"), nm.datasets.load("digits"))
    >>> finding.numbers["gradient"].shape, finding.provenance["layers"]
    ((2,), ['hidden1.sum', 'output.sum'])
    """
    import torch

    if network.domain == "tokens":
        raise UsageError("This network reads text; gradients flow here from labelled inputs.", "Load another network.")
    generator = np.random.default_rng(seed)
    count = len(data)
    which = np.sort(generator.permutation(count)[:limit]) if 0 < limit < count else np.arange(count)
    inputs = network.encode(data.images[which])
    labels = torch.as_tensor(np.asarray(data.labels, dtype=np.int64)[which])
    loss, flow = _flow(network, network.module, inputs, labels)
    if not math.isfinite(loss):
        raise UsageError(
            f"The loss is {loss}, so there are no gradients to follow.",
            "Check the weights and the data for values that are not numbers.",
        )
    shuffled = []
    for _ in range(SHUFFLES):
        module = copy.deepcopy(network.module)
        with torch.no_grad():
            for parameter in module.parameters():
                order = torch.as_tensor(generator.permutation(parameter.numel()))
                parameter.copy_(parameter.reshape(-1)[order].reshape(parameter.shape))
        shuffled.append(_flow(network, module, inputs, labels)[1])
    names = [place.name for place in flow]
    gradient, weight = _column(flow, "gradient"), _column(flow, "weight")
    ratio = np.divide(lr * gradient, weight, out=np.zeros(len(flow)), where=weight > 0)
    dead, saturated, units = (np.array([getattr(p, k) for p in flow]) for k in ("dead", "saturated", "units"))
    advice = _advice(flow, ratio, lr)
    x = np.arange(1, len(flow) + 1)
    return Finding(
        {
            "gradient": gradient,
            "error": _column(flow, "error"),
            "activation": _column(flow, "activation"),
            "weight": weight,
            "ratio": ratio,
            "dead": dead,
            "saturated": saturated,
            "units": units,
            **{f"{k}_shuffled": np.stack([_column(one, k) for one in shuffled]) for k in ("gradient", "error", "activation")},
        },
        (
            Lines(
                "the size of the gradient by layer, in powers of ten",
                x,
                {
                    "gradient of the weights": _log(gradient),
                    "weights shuffled": _log(np.stack([_column(one, "gradient") for one in shuffled])).mean(0),
                },
                "layer",
                "log₁₀ of the root mean square",
            ),
            Lines("the size of the activations by layer", x, {"activation": _column(flow, "activation")}, "layer", "root mean square"),
            Table(
                "layer by layer",
                ("layer", "kind", "activation", "gradient", "update ÷ weight", "dead", "saturated", "units"),
                tuple(
                    (p.name, " ".join(filter(None, (p.kind, p.follower))), p.activation, p.gradient, float(r), p.dead, p.saturated, p.units)
                    for p, r in zip(flow, ratio, strict=True)
                ),
            ),
            Table("advice", ("what this means",), tuple((line,) for line in advice)),
        ),
        _checks(flow, shuffled),
        summary=" ".join(advice),
        provenance={"layers": names, "loss": loss, "images": len(which), "advice": advice},
    )  # fmt: skip


@dataclass(slots=True, eq=False)
class _Place:
    """What one layer was seen to do: root mean squares, and its stuck units."""

    name: str
    kind: str
    gradient: float = 0.0
    error: float = 0.0
    activation: float = 0.0
    weight: float = 0.0
    follower: str = ""  # the elementwise layer that follows
    dead: int = 0
    saturated: int = 0
    units: int = 0  # of that elementwise layer, when it can be judged


def _flow(
    network: Network, module: torch.nn.Module, inputs: torch.Tensor, labels: torch.Tensor
) -> tuple[float, list[_Place]]:
    """The loss, and each layer in the order it first ran."""
    import torch

    if not any(p.requires_grad for p in module.parameters()):
        raise UsageError(
            "This network has no weights that can be trained, so no gradient flows.", "Load a network with weights."
        )
    module = copy.deepcopy(module).train()
    for part in module.modules():
        if "Dropout" in type(part).__name__:
            part.eval()
        if getattr(part, "inplace", False):
            part.inplace = False  # type: ignore[assignment]
    # Frozen weights pass gradients on but have none of their own: every weight is asked here, as the chain rule sees it.
    for parameter in module.parameters():
        parameter.grad = None
        parameter.requires_grad_(parameter.is_floating_point())
    names = {part: name for name, part in module.named_modules()}
    found: dict[Any, _Place] = {}
    latest: list[_Place] = []

    def seen(part: torch.nn.Module, given: tuple[Any, ...], output: Any) -> None:
        if not isinstance(output, torch.Tensor):
            return
        kind = type(part).__name__
        if any(True for _ in part.parameters(recurse=False)):
            if part not in found:
                found[part] = _Place(names[part] or kind, kind)
            place = found[part]
            place.activation = _size(output)
            if output.requires_grad:
                output.register_hook(lambda slope: _felt(place, slope, len(labels)))
            latest[:] = [place]
        elif latest and (kind in _STEEPEST or kind in _RECTIFIERS) and not latest[0].follower:
            _judge(latest[0], kind, output.detach())

    # Only what computes itself: a block around other layers would be counted twice.
    leaves = [
        p for p in module.modules() if next(p.children(), None) is None or next(p.parameters(False), None) is not None
    ]
    hooks = [part.register_forward_hook(seen) for part in leaves]  # on our own copy: nothing to take off again
    with torch.enable_grad():
        try:
            output = module(inputs)
        except (RuntimeError, ValueError) as error:
            raise NetworkError(
                f"This network cannot run {len(labels)} images as in training: {error}.",
                "Raise limit: batch normalisation needs several images.",
            ) from error
        loss = mean_loss(network.loss, output, labels)
        if torch.isfinite(loss):
            loss.backward()
    for hook in hooks:
        hook.remove()
    for part, place in found.items():
        own = list(part.parameters(recurse=False))
        place.weight = _size(*own)
        place.gradient = _size(*[p.grad for p in own if p.grad is not None])
    if not found:
        raise NetworkError("No layer with weights took part in the forward pass.", "Load another network.")
    return loss.item(), list(found.values())


def _felt(place: _Place, slope: torch.Tensor, images: int) -> None:
    place.error = _size(slope) * images  # of one image's own loss: the mean divides it by the number of images


def _size(*tensors: torch.Tensor) -> float:
    """The root mean square of all values together; scaled first, so that squares of tiny ones are not lost."""
    count = sum(t.numel() for t in tensors)
    top = max((float(t.detach().abs().max()) for t in tensors if t.numel()), default=0.0)
    if not count or top == 0 or not math.isfinite(top):
        return top
    return top * math.sqrt(sum(float((t.detach().double() / top).square().sum()) for t in tensors) / count)


def _judge(place: _Place, kind: str, values: torch.Tensor) -> None:
    """Count the stuck units of an elementwise layer: channels of a picture (b c h w), else the last dimension."""
    place.follower, place.activation = kind, _size(values)
    by_unit = values.transpose(1, -1) if values.ndim == 4 else values
    by_unit = by_unit.reshape(-1, by_unit.shape[-1]).double()
    place.units = by_unit.shape[1]
    if kind in _STEEPEST:
        slope = by_unit * (1 - by_unit) if kind == "Sigmoid" else 1 - by_unit.square()
        place.saturated = int(((slope < FLAT * _STEEPEST[kind]).double().mean(0) > MOSTLY).sum())
    else:
        place.dead = int((by_unit == 0).all(0).sum())


def _column(flow: list[_Place], name: str) -> np.ndarray:
    return np.array([getattr(place, name) for place in flow])


def _log(values: np.ndarray) -> np.ndarray:
    """Powers of ten; what is exactly 0 (too small for its type of number) stands at the smallest there can be."""
    return np.log10(np.maximum(values, 5e-324))


def _reach(flow: list[_Place]) -> float:
    """The first layer's gradient as a share of the last's; 0 when it is too small for its type of number."""
    return flow[0].gradient / flow[-1].gradient if flow[-1].gradient > 0 else 1.0 if flow[0].gradient == 0 else math.inf


def _advice(flow: list[_Place], ratio: np.ndarray, lr: float) -> list[str]:
    said, share = [], _reach(flow)
    kinds = {place.follower for place in flow if place.follower}
    kind = f" {kinds.pop().lower()}" if len(kinds) == 1 else ""
    what = f"the gradient at its first layer is {share:.0e} of that at its last"
    if share == 0:
        what = "the gradient at its first layer is 0, too small for a number"
    normed = any(place.kind.startswith(_NORMS) for place in flow)
    mend = "Add residual connections" + ("" if normed else " or normalisation") + ", or take fewer layers or ReLU."
    if not any(place.gradient for place in flow):
        said.append("No layer has any gradient: the loss is flat here, so no step moves anything.")
    elif share < LOST:
        said.append(f"This net of {len(flow)}{kind} layers cannot learn: {what}. {mend}")
    elif share < WEAK:
        said.append(f"This net of {len(flow)}{kind} layers learns slowly: {what}. {mend}")
    elif share > BURST:
        said.append(f"The gradient grows on its way back: {what}. Lower the rate, clip gradients or normalise.")
    for word, verb, mended in (
        ("dead", "put out 0 for every image, so no gradient reaches them", "Lower the rate, or use a leaky ReLU."),
        ("saturated", "lie where their curve is flat", "Start with smaller weights, scale the inputs, or lower the rate."),
    ):  # fmt: skip
        stuck, units = sum(getattr(p, word) for p in flow), sum(p.units for p in flow if p.units)
        if stuck:
            worst = max(flow, key=lambda p: getattr(p, word) / max(p.units, 1))
            said.append(
                f"{stuck} of {units} units are {word}: they {verb}. Most are at {worst.name} "
                f"({getattr(worst, word)} of {worst.units}). {mended}"
            )
    fast, slow = int(ratio.argmax()), int(ratio.argmin())
    if ratio[fast] > HASTY:
        said.append(
            f"At a rate of {lr:g} a step changes the weights of {flow[fast].name} by {100 * ratio[fast]:.0f} % "
            f"of their size: lower the rate (about {lr * 1e-2 / ratio[fast]:.1g} would change them by 1 %)."
        )
    elif lr > 0 and 0 < ratio[fast] < IDLE:
        said.append(
            f"At a rate of {lr:g} no step changes any layer by more than {ratio[fast]:.0e} of its weights "
            f"(least at {flow[slow].name}): it has finished learning, or the rate is too low."
        )
    return said or ["The gradient reaches every layer, and no unit is stuck: nothing to mend."]


def _checks(flow: list[_Place], shuffled: list[list[_Place]]) -> tuple[Check, ...]:
    share = min(_reach(flow), 1e308)
    shares = np.minimum([_reach(one) for one in shuffled], 1e308)
    stuck = _stuck(flow)
    checks = [
        Check(
            "the gradient reaches the first layer",
            share,
            float(np.median(shares)),
            (float(shares.min()), float(shares.max())),
            bool(WEAK <= share <= BURST),
            f"The first layer's gradient as a share of the last's, which should lie from {WEAK:g} to {BURST:g}; the null "
            f"and the interval are {SHUFFLES} nets with the same weights shuffled within each tensor.",
        )
    ]
    if stuck is not None:
        others = [_stuck(one) or 0.0 for one in shuffled]
        checks.append(
            Check(
                "few units are stuck",
                stuck,
                float(np.median(others)),
                (min(others), max(others)),
                stuck <= 0.1,
                "Share of units that are dead or saturated, at most a tenth; the null has its weights shuffled.",
            )
        )
    return tuple(checks)


def _stuck(flow: list[_Place]) -> float | None:
    units = sum(place.units for place in flow)
    return sum(place.dead + place.saturated for place in flow) / units if units else None
