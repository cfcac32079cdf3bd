"""Explaining a decision: which class, which picture, how gradients pass a ReLU, and the evidence a map must carry."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import NetworkError, UnknownName, UsageError
from .lens import weights_hash
from .progress import over
from .tracing import trace
from .types import Check, Finding, Layer, Network, Trace
from .views import Lines, Overlay

if TYPE_CHECKING:
    import torch

CELLS, STEPS, ORDERS = 16, 10, 8  # of the deletion and insertion curves: cells a side, steps, random orders
_PASSING = ("Dropout", "Sequential")  # the same maps under another name
CHANGED = 0.5  # a map that agrees more than this with that of shuffled weights does not show what was learned


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """One picture and one class: what every explanation starts from.

    `encoded` is 1 × the network's shape; `picture` rows × columns × 3 in 0..1, as the network was shown it.
    """

    encoded: torch.Tensor
    picture: np.ndarray
    index: int
    label: str
    score: float  # the network's own output for the class: a logit, for most
    probability: float
    trace: Trace  # of the picture: the layers that `question` was given, and the output


def question(network: Network, image: Any, target: str | int | None, layers: Iterable[str] = ()) -> Question:
    """The picture as the network takes it, and the class that is asked about (None for the one it says).

    `layers` are traced in the same run, for who needs them of the whole picture.

    Raises UnknownName for a class that does not exist, NetworkError for a network that names no classes.
    """
    encoded = network.encode(image)[:1]
    return asked_about(network, encoded, target, trace(network, encoded, layers=layers, output=True))


def asked_about(network: Network, encoded: torch.Tensor, target: str | int | None, seen: Trace) -> Question:
    """The question, where the picture has been traced already: it is the first of the batch that was `seen`."""
    scores = scores_of(seen.output)[:1]
    index = class_index(network, scores, target)
    said = network.decode(scores)[0]
    return Question(
        encoded, picture_of(network, encoded), index, said.labels[index], float(scores[0, index]),
        float(said.scores[index]), seen,
    )  # fmt: skip


def scores_of(output: Any) -> torch.Tensor:
    """The network's output as b × classes; a single output speaks for the second of two classes, and against the first.

    Raises NetworkError when it is something else.
    """
    import torch

    if not isinstance(output, torch.Tensor) or output.ndim != 2:
        raise NetworkError("This network's output is not one row of scores a picture.", "Load an image classifier.")
    return torch.cat([1 - output, output], 1) if output.shape[1] == 1 else output


def class_index(network: Network, scores: torch.Tensor, target: str | int | None) -> int:
    """Which output a class has. Raises UnknownName, with the nearest names, for one that does not exist."""
    if target is None:
        return int(scores[0].argmax())
    count = scores.shape[1]
    names = network.labels[:count] if network.labels else tuple(map(str, range(count)))
    if isinstance(target, str) and not target.lstrip("-").isdigit():
        found = [i for i, name in enumerate(names) if name.lower() == target.lower()]
        if not found:
            raise UnknownName("class", target, names)
        return found[0]
    if str(target) in names:
        return names.index(str(target))
    if not 0 <= int(target) < count:
        raise UsageError(f"There are classes 0 to {count - 1}, not {target}.", "Choose one of those, or give a name.")
    return int(target)


def picture_of(network: Network, encoded: torch.Tensor) -> np.ndarray:
    """An encoded picture as it looks: rows × columns × 3 in 0..1, by undoing the network's own scaling."""
    dark, bright = (network.encode(np.full(network.shape, v, dtype=np.float32))[0].double() for v in (0.0, 1.0))
    raw = ((encoded[0].double() - dark) / (bright - dark)).clamp(0, 1).cpu().numpy()
    raw = raw[None] if raw.ndim == 2 else raw
    return np.ascontiguousarray(np.moveaxis(np.broadcast_to(raw, (3, *raw.shape[1:])), 0, -1), dtype=np.float32)


def encoded_colour(network: Network, colour: str) -> torch.Tensor:
    """A whole picture of "mean" (0 as the network takes it), "black", "grey" or "white", encoded."""
    import torch

    if colour == "mean":
        return torch.zeros((1, *network.shape))
    return network.encode(np.full(network.shape, {"black": 0.0, "grey": 0.5, "white": 1.0}[colour], dtype=np.float32))


@contextmanager
def frozen(network: Network) -> Iterator[None]:
    """Without gradients for the weights: only what leads to the picture or the layer is kept and worked out.

    Gradients are on inside, also for a caller who switched them off.
    """
    import torch

    wanted = [(parameter, parameter.requires_grad) for parameter in network.module.parameters()]
    try:
        for parameter, _ in wanted:
            parameter.requires_grad_(False)
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for parameter, flag in wanted:
            parameter.requires_grad_(flag)


def input_gradient(network: Network, encoded: torch.Tensor, index: int) -> torch.Tensor:
    """d score of the class / d every input number, for each picture of a batch."""
    import torch

    with frozen(network):
        inputs = encoded.detach().clone().requires_grad_()
        scores = scores_of(trace(network, inputs, layers=[], output=True, grad=True).output)
        return torch.autograd.grad(scores[:, index].sum(), inputs)[0]


@contextmanager
def rectified(guided: bool) -> Iterator[list[int]]:
    """Gradients pass every ReLU by the deconvnet's rule (only what is positive), or the guided one (and was lit).

    Holds for modules and for functions; the list that is given counts the ReLUs that were met.
    """
    import torch
    from torch.nn import functional
    from torch.overrides import TorchFunctionMode

    class Rectified(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, inputs: torch.Tensor, top: float) -> torch.Tensor:
            ctx.save_for_backward((inputs > 0) & (inputs < top))
            return inputs.clamp(0, top)

        @staticmethod
        def backward(ctx: Any, *slopes: torch.Tensor) -> tuple[torch.Tensor, None]:
            kept = slopes[0].clamp(min=0)
            return (kept * ctx.saved_tensors[0] if guided else kept), None

    met = [0]
    plain = {functional.relu, torch.relu, torch.Tensor.relu, torch.Tensor.relu_, torch.relu_, functional.relu_}
    capped = {functional.relu6, functional.hardtanh, functional.hardtanh_}

    class Mode(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if func not in plain and func not in capped:
                return func(*args, **kwargs)
            low, high = args[1:3] if len(args) > 2 else (kwargs.get("min_val", -1.0), kwargs.get("max_val", 1.0))
            if func in capped - {functional.relu6} and low != 0:
                return func(*args, **kwargs)
            top = float("inf") if func in plain else 6.0 if func is functional.relu6 else float(high)
            met[0] += 1
            inputs = args[0] if args else kwargs["input"]
            result = Rectified.apply(inputs, top)
            # In place means in place: a caller may go on with the tensor it gave, and not with what it gets.
            named = args[3:] if func is functional.hardtanh else args[1:]
            inplace = getattr(func, "__name__", "").endswith("_") or any(named[:1]) or kwargs.get("inplace")
            return inputs.copy_(result) if inplace else result

    with Mode():
        yield met


def last_spatial(network: Network) -> tuple[Layer, str]:
    """The layer whose maps say most of where evidence lies, and why it was chosen.

    Of convolutional networks the last maps larger than 1 × 1 that are not yet one for each class; of vision
    transformers the tokens that the last block reads. Raises NetworkError for a network without any.
    """
    maps = [layer for layer in network.layers if layer.dims == "b c h w" and layer.shape[2] * layer.shape[3] > 1]
    tokens = [layer for layer in network.layers if layer.dims == "b t d" and _side(layer.shape[1])]
    if tokens and (not maps or network.layers.index(tokens[-1]) > network.layers.index(maps[-1])):
        # What leaves the last block is read at the class token alone, so patches have no gradient there.
        norms = [
            layer
            for layer in tokens
            if ("Norm" in layer.kind and "before" in layer.name) or layer.name.endswith("norm1")
        ]
        chosen = norms[-1] if norms else tokens[max(0, len(tokens) - 2)]
        return chosen, "the tokens that the last block reads: behind it only the class token counts"
    fitting = [
        m
        for m in maps
        if m.shape[1] != len(network.labels) and not m.kind.startswith(_PASSING) and not _handed_out(network, m)
    ]
    if not fitting:
        raise NetworkError(
            "This network has no layer with maps, so no place in the picture can be read off a layer.",
            "Use saliency, integrated_gradients or occlusion, which need none.",
        )
    return fitting[-1], "the last maps before the classes: the most meaning that still has a place"


def _handed_out(network: Network, layer: Layer) -> bool:
    """Whether a part went on with smaller maps before it put these out: nobody reads them, the scores pass them by."""
    before = network.layers[network.layers.index(layer) - 1]
    return before.name.startswith(f"{layer.name}.") and before.shape[2:] != layer.shape[2:]


def as_maps(values: torch.Tensor) -> torch.Tensor:
    """b × t × d tokens as b × d × rows × columns, without the class token; maps as they are."""
    if values.ndim == 4:
        return values
    side = _side(values.shape[1])
    if values.ndim != 3 or not side:
        raise UsageError(
            f"A layer of shape {tuple(values.shape)} has no rows and columns.", "Choose a layer with maps."
        )
    patches = values[:, -side * side :]
    return patches.transpose(1, 2).reshape(len(values), values.shape[2], side, side)


def _side(count: int) -> int:
    """Rows of a square of patches among so many tokens, with up to two more (class, distillation); 0 if there is none."""
    return next(
        (int(np.sqrt(count - more)) for more in (0, 1, 2) if count - more > 1 and np.sqrt(count - more) % 1 == 0), 0
    )


@lru_cache(maxsize=2)
def _shuffled(module: Any, weights: str, seed: int) -> Any:
    """A copy whose every weight tensor holds its own values in random order: the same spread, nothing learned."""
    import torch

    twin = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.copy_(
                parameter.flatten()[torch.randperm(parameter.numel(), generator=generator)].view_as(parameter)
            )
    return twin


def shuffled_twin(network: Network, seed: int = 0) -> Network:
    """The same network with every weight tensor shuffled: what an explanation must not survive."""
    return replace(network, module=_shuffled(network.module, weights_hash(network), seed))


def curves(network: Network, asked: Question, orders: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Deletion and insertion: the class's probability as cells are covered, or uncovered, in each order.

    `orders` is n × cells (CELLS² of them, the most important first); what is covered gets the network's 0, for most
    the mean colour. Gives two arrays n × (STEPS + 1). Source: Petsiuk, Das and Saenko (2018), "RISE".
    """
    import torch

    rows, columns = asked.encoded.shape[-2:]
    down, right = np.arange(rows) * CELLS // rows, np.arange(columns) * CELLS // columns
    ranks = np.argsort(orders, axis=1)
    empty = torch.zeros_like(asked.encoded)
    ends = [_probability(network, asked.encoded, asked.index)[0], _probability(network, empty, asked.index)[0]]
    found = np.empty((2, len(orders), STEPS + 1))
    for which, (start, end) in enumerate((ends, ends[::-1])):
        found[which, :, 0], found[which, :, -1] = start, end
        for n, rank in enumerate(over(ranks, "order of places", until=0.5)):
            done = rank[None] < (np.arange(1, STEPS)[:, None] * CELLS * CELLS / STEPS)
            cells = done.reshape(-1, CELLS, CELLS)[:, down][:, :, right]
            covered = torch.as_tensor(cells if which == 0 else ~cells)
            covered = covered.view(len(cells), *(1,) * (asked.encoded.ndim - 3), rows, columns)
            found[which, n, 1:-1] = _probability(network, torch.where(covered, empty, asked.encoded), asked.index)
    return found[0], found[1]


def _probability(network: Network, batch: torch.Tensor, index: int) -> np.ndarray:
    scores = scores_of(trace(network, batch, layers=[], output=True).output)
    return np.array([said.scores[index] for said in network.decode(scores)])


_nulls: dict[tuple[str, bytes, int, int], tuple[np.ndarray, np.ndarray]] = {}


def _random_curves(network: Network, asked: Question, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The null of all explanations of one decision: found once, kept for the next of them."""
    key = weights_hash(network), asked.encoded.numpy().tobytes(), asked.index, seed
    if key not in _nulls:
        generator = np.random.default_rng(seed)
        while len(_nulls) > 15:
            _nulls.pop(next(iter(_nulls)))
        _nulls[key] = curves(network, asked, np.stack([generator.permutation(CELLS * CELLS) for _ in range(ORDERS)]))
    return _nulls[key]


def order_of(importance: np.ndarray) -> np.ndarray:
    """The cells of a map, CELLS × CELLS, from the most important to the least."""
    import torch

    cells = torch.nn.functional.adaptive_avg_pool2d(torch.as_tensor(importance, dtype=torch.float64)[None], CELLS)
    return np.argsort(-cells.numpy().ravel(), kind="stable")


def explained(
    network: Network,
    asked: Question,
    importance: np.ndarray,
    again: Callable[[Network], np.ndarray] | None,
    *,
    name: str,
    scale: str,
    numbers: Mapping[str, np.ndarray],
    evidence: bool,
    seed: int = 0,
    checks: tuple[Check, ...] = (),
    summary: str = "",
) -> Finding:
    """A map over its picture as a Finding, with its evidence.

    `again` makes the same map on another network: with shuffled weights it must change (Adebayo and others 2018).
    Covering and uncovering the picture in the map's order must beat random orders (deletion and insertion).
    A plain sentence says when the map fails.
    """
    # A map as fine as the picture has a few pixels far above all others: 1 % lie beyond the brightest colour.
    limit = float(np.quantile(np.abs(importance), 0.99)) if len(importance) > 64 else 0.0
    views: list[Any] = [Overlay(f"{name}: {asked.label}", asked.picture, importance, scale, limit or None)]
    found = {"map": importance, **numbers}
    said = [summary] if summary else []
    if not np.abs(importance).max(initial=0) > 0:
        said.append("The map is 0 everywhere: no change of the picture, however small, moves this class here.")
        evidence = False
    if evidence:
        more, curved, sentences, lines = _evidence(network, asked, importance, again, seed)
        checks, said, views = (*checks, *more), [*said, *sentences], [*views, lines]
        found |= curved
    place = np.unravel_index(int(np.argmax(importance)), importance.shape)
    strongest = "The strongest place is at row {}, column {} of {} × {}.".format(*place, *importance.shape)
    lead = f"{asked.label}: probability {asked.probability:.3g}."
    return Finding(
        found,
        tuple(views),
        checks,
        " ".join((lead, strongest, *said)),
        provenance={
            "target": asked.label,
            "index": asked.index,
            "probability": asked.probability,
            "score": asked.score,
        },
    )


def _evidence(
    network: Network, asked: Question, importance: np.ndarray, again: Callable[[Network], np.ndarray] | None, seed: int
) -> tuple[list[Check], dict[str, np.ndarray], list[str], Lines]:
    from scipy.stats import spearmanr

    checks, said = [], []
    if again is not None:
        other = again(shuffled_twin(network, seed))
        flat = np.ptp(np.abs(other)) == 0 or np.ptp(np.abs(importance)) == 0
        alike = 0.0 if flat else float(spearmanr(np.abs(importance).ravel(), np.abs(other).ravel()).statistic)
        checks.append(
            Check("changes with the weights", alike, CHANGED, None, alike < CHANGED,
                  f"Rank correlation with the map of the same network with every weight tensor shuffled; below {CHANGED} it changed.")
        )  # fmt: skip
        if alike >= CHANGED:
            said.append(
                "It fails: with shuffled weights the map stays much the same, so it shows the picture and not what was learned."
            )
    (deleted,), (inserted,) = curves(network, asked, order_of(importance)[None])
    random_deleted, random_inserted = _random_curves(network, asked, seed)
    for name, own, random, better in (
        ("deletion", deleted, random_deleted, -1),
        ("insertion", inserted, random_inserted, 1),
    ):
        area, chance = _area(own), np.array([_area(curve) for curve in random])
        beaten = bool((better * area > better * chance).all())
        checks.append(
            Check(name, area, float(chance.mean()), (float(chance.min()), float(chance.max())), beaten,
                  f"Mean probability while {'covering' if better < 0 else 'uncovering'} the map's places first; null: {ORDERS} random orders, their mean and range.")
        )  # fmt: skip
        if not beaten:
            said.append(
                f"It fails: {'covering' if better < 0 else 'uncovering'} what it marks changes the class no more than places at random."
            )
    numbers = {
        "deletion": deleted, "insertion": inserted, "random_deletion": random_deleted, "random_insertion": random_inserted,
    }  # fmt: skip
    lines = Lines(
        "probability as places are covered or uncovered", np.linspace(0, 1, STEPS + 1),
        {"covered, map's order": deleted, "covered, at random": random_deleted.mean(0),
         "uncovered, map's order": inserted, "uncovered, at random": random_inserted.mean(0)}, "share of the picture", "probability",
    )  # fmt: skip
    return checks, numbers, said, lines


def _area(curve: np.ndarray) -> float:
    return float(np.trapezoid(curve, dx=1 / (len(curve) - 1)))
