"""What the pieces are worked on: for each its words, what can be set, and a real example with its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import architectures
from ..architectures.trained import TRAIN, trained
from ..errors import UnknownName, UsageError
from ..tracing import trace
from ..types import Dataset
from . import resolve
from .requests import DataRequest, NetworkRequest, PieceRequest

Option = int | float | str | bool


@dataclass(frozen=True, slots=True)
class Control:
    """One thing that can be set: a choice, or a number from `low` to `high`."""

    name: str
    label: str
    default: Option
    help: str
    choices: tuple[tuple[str, str], ...] = ()
    low: float = 0
    high: float = 0
    only: tuple[str, ...] = ()  # a control and those of its choices without which this one says nothing


@dataclass(frozen=True, slots=True)
class About:
    """What a piece does, why it was invented, and by whom."""

    title: str
    does: str
    why: str
    source: str
    controls: tuple[Control, ...] = ()
    pick: str = "digit"  # what chooses the example: a digit, or a text


@dataclass(frozen=True, slots=True)
class Case:
    """One example with its weights, ready for `arithmetic(piece, example, weights, …, **options)`."""

    piece: str
    build: Mapping[str, Any]
    options: Mapping[str, Any]
    example: np.ndarray
    weights: Mapping[str, np.ndarray]
    code: list[str]  # Python that makes `example` and `weights`
    said: str  # what is worked on, in words
    shown: Mapping[str, Option]
    total: int  # how many examples there are to choose from
    names: Mapping[str, list[str]] = field(default_factory=dict)  # of an axis' places, by its letter
    batched: bool = False
    paints: bool = True  # the input is pixels: it can be drawn on


SEEDED = "Weights drawn from the seed, untrained."
EDGE = np.array([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
KERNELS = {"upright": EDGE, "level": EDGE.T, "blur": np.full((3, 3), 1 / 9)}
HEADS = {"one": 1, "two": 2, "four": 4}
STRENGTH = Control(
    "strength", "weights ×", 1.0, "All seeded weights are multiplied by this: 0 shuts the long road.", low=0, high=4
)

ABOUT: dict[str, About] = {
    "dense": About(
        "Dense",
        "Every output adds up every input, each times a weight of its own, and bends the sum.",
        "A single threshold unit could be taught by its mistakes; layers of them needed a smooth bend to send slopes back.",
        "Rosenblatt 1958; Rumelhart, Hinton and Williams 1986",
        (
            Control("weights", "weights", "trained", "The bundled net 64-10, or drawn from the seed.", (("trained", "trained (64-10)"), ("seeded", "seeded"))),
            Control("activation", "activation", "sigmoid", "The bend; 64-10 was trained with the sigmoid.", (("sigmoid", "sigmoid"), ("tanh", "tanh"), ("relu", "ReLU"), ("linear", "none"))),
            Control("loss", "loss", "squared", "What the outputs are judged by, on three digits. Cross-entropy takes the outputs as logits.", (("squared", "squared error"), ("cross_entropy", "cross-entropy"))),
        ),
    ),
    "convolution": About(
        "Convolution",
        "One small kernel slides over the input: at every place, window × kernel, summed.",
        "A stroke is a stroke wherever it stands: few weights, shared by all places.",
        "Fukushima 1980; LeCun et al. 1989",
        (
            Control("kernel", "kernel", "upright", "Set by hand, trained here on the digits, or drawn from the seed.", (("upright", "upright edges (Sobel)"), ("level", "level edges (Sobel)"), ("blur", "blur"), ("trained", "four, trained here"), ("seeded", "seeded"))),
            Control("size", "size", 3, "Of a seeded kernel: size × size.", low=1, high=5, only=("kernel", "seeded")),
            Control("stride", "stride", 1, "How far the window moves.", low=1, high=3),
            Control("padding", "padding", 0, "How wide a rim of zeros is laid around the input.", low=0, high=2),
        ),
    ),
    "pooling": About(
        "Pooling",
        "Each window becomes one number: its largest, or its mean.",
        "A smaller map that changes little when the stroke moves a little.",
        "Fukushima 1980; max and its switches: Zeiler and Fergus 2014",
        (
            Control("kind", "kind", "max", "What is kept of a window.", (("max", "max"), ("average", "mean"))),
            Control("size", "size", 2, "Of the window: size × size.", low=1, high=4),
            Control("stride", "stride", 2, "How far the window moves.", low=1, high=4),
            Control("padding", "padding", 0, "How wide a rim is laid around; at most half the size.", low=0, high=2),
        ),
    ),
    "normalisation": About(
        "Normalisation",
        "Takes the mean off and divides by the deviation, then scales and shifts.",
        "Every layer gets numbers of the same size to work with, however the layers below drift.",
        "Ioffe and Szegedy 2015; Ba et al. 2016; Wu and He 2018",
        (
            Control("kind", "over", "batch", "Which numbers share a mean.", (("batch", "the batch"), ("maps", "the batch, of maps (2-D)"), ("layer", "each example (layer norm)"), ("group", "groups of units"))),
            Control("mode", "mode", "train", "In training a batch's own mean and variance; afterwards the running ones, whatever the batch.", (("train", "train"), ("eval", "eval")), only=("kind", "batch", "maps")),
            Control("groups", "groups", 2, "Of the eight units, for groups.", low=1, high=8, only=("kind", "group")),
        ),
    ),
    "residual": About(
        "Residual",
        "Two convolutions work on the input, and the input itself is added to what they make.",
        "The slope comes back along the short road undiminished, so a hundred layers can learn.",
        "He et al. 2016",
        (
            Control("stride", "stride", 1, "2 halves the map; the short road then needs a 1 × 1 convolution.", low=1, high=2),
            STRENGTH,
        ),
    ),
    "inception": About(
        "Inception",
        "Windows of 1 × 1, 3 × 3 and 5 × 5 and a pooling look side by side; their maps are stacked.",
        "Nobody knows the right size of window: take all, and let training choose.",
        "Szegedy et al. 2015",
        (STRENGTH,),
    ),
    "recurrent": About(
        "Recurrent",
        "One cell reads row after row; its state carries what it has seen to the next.",
        "Sequences of any length with the same few weights; gates so that it need not forget.",
        "Elman 1990; GRU: Cho et al. 2014",
        (
            Control("kind", "cell", "elman", "The plain cell, or the gated one.", (("elman", "Elman"), ("gru", "GRU"))),
            Control("hidden", "states", 4, "How many numbers the cell remembers.", low=1, high=6),
        ),
    ),
    "attention": About(
        "Attention",
        "Each token asks all others, by several heads: query × key says whom it heeds, and their values are mixed.",
        "A word may need one that stands far off: every pair meets in one step.",
        "Bahdanau et al. 2015; Vaswani et al. 2017",
        (
            Control("tokens", "tokens", "words", "The first six numbers of each word's row in MiniLM's embedding, or the rows of a digit.", (("words", "words of a sentence"), ("rows", "rows of a digit"), ("trained", "rows of a digit, trained heads"))),
            Control("causal", "mask", "no", "Causal: a token sees only itself and what came before.", (("no", "none"), ("yes", "causal"))),
            Control("heads", "heads", "two", "Each asks with a query of its own; what they say is joined.", (("one", "1"), ("two", "2"), ("four", "4"))),
            Control("head", "numbers a head", 3, "How many numbers a query, a key and a value have.", low=1, high=6),
            Control("sharpness", "weights ×", 3.0, "The seeded query and key weights are multiplied by this: larger, and attention is sharper.", low=0, high=20, only=("tokens", "words", "rows")),
        ),
        "text",
    ),
}  # fmt: skip


def case(asked: PieceRequest) -> Case:
    """The example, the weights and the options that were asked for.

    Raises UnknownName for another piece or choice, UsageError for a number outside its range.
    """
    if asked.piece not in ABOUT:
        raise UnknownName("piece", asked.piece, ABOUT)
    return CASES[asked.piece](asked, _settings(asked))


def _settings(asked: PieceRequest) -> dict[str, Any]:
    """Every control's value, checked."""
    controls = {control.name: control for control in ABOUT[asked.piece].controls}
    for name in asked.options:
        if name not in controls:
            raise UnknownName(f"option of {asked.piece}", name, controls)
    chosen: dict[str, Any] = {}
    for name, control in controls.items():
        value = asked.options.get(name, control.default)
        if control.choices:
            allowed = [key for key, _ in control.choices]
            if value not in allowed:
                raise UnknownName(control.label, str(value), allowed)
        elif not isinstance(value, (int, float)) or not control.low <= value <= control.high:
            raise UsageError(f"{control.label} is {value}.", f"Give {control.low:g} to {control.high:g}.")
        elif isinstance(control.default, int) and value != int(value):
            raise UsageError(f"{control.label} is {value}.", "Give a whole number.")
        chosen[name] = int(value) if isinstance(control.default, int) else value
    return chosen


def _digits(asked: PieceRequest, count: int = 1) -> tuple[Dataset, np.ndarray, str]:
    """`count` digits from the chosen one on, the whole set, and the code that takes them."""
    data = resolve.data(DataRequest(part="all"))
    if asked.index + count > len(data):
        raise UsageError(f"There is no digit {asked.index + count - 1}.", f"Choose 0 to {len(data) - count}.")
    images = data.images[asked.index : asked.index + count].astype(np.float64)
    return data, images, 'digits = nm.datasets.load("digits")'


def _weights(build: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], str]:
    """A new piece's own weights, and the code that draws them."""
    state = architectures.build(build).state_dict()
    found = {name: value.numpy().copy() for name, value in state.items() if value.is_floating_point()}
    said = ", ".join(f'"{name}": {value!r}' for name, value in build.items())
    return found, f"weights = {{k: v.numpy().copy() for k, v in build({{{said}}}).state_dict().items()}}"


def _trained(build: Mapping[str, Any], what: str) -> tuple[dict[str, np.ndarray], list[str], str]:
    """A piece's weights trained here, the code that trains them, and what to say of them."""
    found = trained(build)
    dead = "".join(
        f" Kernel {at} is dead: its map is below 0 on every digit, and a ReLU lets nothing through."
        for at in found.dead
    )
    said = f"{what} trained here on {TRAIN} of the digits (from the seed), with a linear readout that names {found.accuracy:.1%} of the others right.{dead}"
    code = [
        "from neuralmine.architectures.trained import trained",
        f"weights = {{k: v.copy() for k, v in trained({dict(build)!r}).weights.items()}}",
    ]
    return {name: value.copy() for name, value in found.weights.items()}, code, said


def _one_digit(asked: PieceRequest) -> tuple[np.ndarray, list[str], str, int]:
    data, images, code = _digits(asked)
    take = f'example = digits.images[{asked.index}][None].astype("float64")'
    said = f"digit {asked.index} of the bundled set, a {data.classes[data.labels[asked.index]]}: 8 × 8 pixels, 0 is paper and 1 is ink"
    return images, [code, take], said, len(data)


def _convolution(asked: PieceRequest, chosen: dict[str, Any]) -> Case:
    example, code, said, total = _one_digit(asked)
    options = {name: chosen[name] for name in ("stride", "padding")}
    seeded, learned = chosen["kernel"] == "seeded", chosen["kernel"] == "trained"
    build = {
        "name": "convolution", "inputs": 1, "outputs": 4 if learned else 1, "size": chosen["size"] if seeded else 3, **options, "seed": asked.seed,
    }  # fmt: skip
    if learned:
        weights, train, made = _trained(build, "Four kernels")
        return Case("convolution", build, options, example, weights, [*code, *train], f"{said}. {made}", chosen, total)
    weights, drawn = _weights(build)
    code.append(drawn)
    if not seeded:
        kernel = KERNELS[chosen["kernel"]]
        weights = {"convolution.weight": kernel[None, None].copy(), "convolution.bias": np.zeros(1)}
        code += [
            f'weights["convolution.weight"][:] = {kernel.tolist()}' if chosen["kernel"] != "blur" else 'weights["convolution.weight"][:] = 1 / 9',
            'weights["convolution.bias"][:] = 0',
        ]  # fmt: skip
    made = SEEDED if seeded else "A kernel set by hand, bias 0."
    return Case("convolution", build, options, example, weights, code, f"{said}. {made}", chosen, total)


def _pooling(asked: PieceRequest, chosen: dict[str, Any]) -> Case:
    example, code, said, total = _one_digit(asked)
    if chosen["padding"] > chosen["size"] / 2:
        raise UsageError(
            f"padding is {chosen['padding']}, more than half the size.", f"Use 0 to {chosen['size'] // 2}."
        )
    code.append("weights = {}")
    return Case(
        "pooling", {"name": "pooling", **chosen}, chosen, example, {}, code, f"{said}. Nothing here is trained: there are no weights.", chosen, total,
    )  # fmt: skip


def _dense(asked: PieceRequest, chosen: dict[str, Any]) -> Case:
    count = 3
    data, images, code = _digits(asked, count)
    right = [int(label) for label in data.labels[asked.index : asked.index + count]]
    take = f'example = digits.images[{asked.index}:{asked.index + count}].reshape({count}, 64).astype("float64")'
    build = {
        "name": "dense", "inputs": 64, "outputs": 10, "activation": chosen["activation"], "seed": asked.seed,
    }  # fmt: skip
    if chosen["weights"] == "trained":
        module = resolve.network(NetworkRequest(address="64-10")).module
        weights = {name.removeprefix("output."): value.numpy().copy() for name, value in module.state_dict().items()}
        drawn = 'weights = {k.removeprefix("output."): v.numpy().copy() for k, v in nm.load("64-10").module.state_dict().items()}'
    else:
        weights, drawn = _weights(build)
    made = "Weights of the bundled net 64-10, trained on digits." if chosen["weights"] == "trained" else SEEDED
    options = {"activation": chosen["activation"], "loss": chosen["loss"], "targets": right}
    names = {
        "b": [f"digit {asked.index + i}, a {label}" for i, label in enumerate(right)],
        "o": [str(i) for i in range(10)],
    }
    said = f"digits {asked.index} to {asked.index + count - 1} of the bundled set, 64 pixels each: a {', a '.join(map(str, right))}. {made}"
    return Case(
        "dense", build, options, images.reshape(count, 64), weights, [code, take, drawn], said, chosen,
        len(data) - count + 1, names, batched=True,
    )  # fmt: skip


def _normalisation(asked: PieceRequest, chosen: dict[str, Any]) -> Case:
    import torch

    maps = chosen["kind"] == "maps"
    count, units = (4, 4) if maps else (6, 8)
    data, _, load = _digits(asked, count)
    code = [load]
    if units % chosen["groups"] and chosen["kind"] == "group":
        raise UsageError(f"{chosen['groups']} groups do not divide {units} units.", "Use 1, 2, 4 or 8.")
    if maps:
        source = {"name": "convolution", "inputs": 1, "outputs": units, "size": 3, "seed": asked.seed}
        layer = architectures.build(source)
        layer.load_state_dict({name: torch.tensor(value) for name, value in trained(source).weights.items()})
        images = torch.tensor(data.images[:, None], dtype=torch.float64)
        code += [
            "import torch",
            "from neuralmine.architectures.trained import trained",
            f"layer = build({source!r})",
            f"layer.load_state_dict({{k: torch.tensor(v) for k, v in trained({source!r}).weights.items()}})",
            "everything = layer(torch.tensor(digits.images[:, None]).double()).detach()",
        ]
        said = "the maps of four kernels trained here on digits (the convolution’s), for"
    else:
        layer = resolve.network(NetworkRequest(address="64-16-10")).module.get_submodule("hidden1.sum")
        images = torch.tensor(data.images.reshape(-1, 64), dtype=torch.float64)
        code += [
            "import torch",
            'layer = nm.load("64-16-10").module.get_submodule("hidden1.sum")',
            f"everything = layer(torch.tensor(digits.images.reshape(-1, 64)).double()).detach()[:, :{units}]",
        ]
        said = "what the first eight units of the bundled net 64-16-10 sum up for"
    with torch.no_grad():
        everything = layer(images)[:, :units]
    example = everything[asked.index : asked.index + count].numpy().copy()
    code.append(f"example = everything[{asked.index}:{asked.index + count}].numpy().copy()")
    groups = {"groups": chosen["groups"]} if chosen["kind"] == "group" else {}
    kind = "batch" if maps else chosen["kind"]
    build = {"name": "normalisation", "kind": kind, "width": units, **groups, **({"maps": True} if maps else {})}
    norm = architectures.build(build)
    code.append(f"norm = build({build!r})")
    options: dict[str, Any] = {"kind": kind, **groups}
    running = ""
    if kind == "batch":
        options["training"] = chosen["mode"] == "train"
        with torch.no_grad():
            for batch in everything.split(32):
                norm(batch)
        code += ["for batch in everything.split(32):", "    norm(batch)"]
        running = " The running mean and variance are those that torch has after all 1797 digits, 32 at a time."
    state = norm.state_dict()
    weights = {name: value.numpy().copy() for name, value in state.items() if value.is_floating_point()}
    code.append("weights = {k: v.numpy().copy() for k, v in norm.state_dict().items() if v.is_floating_point()}")
    right = data.labels[asked.index : asked.index + count]
    names = {
        "b": [f"digit {asked.index + i}, a {label}" for i, label in enumerate(right)],
        "u": [f"{'map' if maps else 'unit'} {u}" for u in range(units)],
    }
    return Case(
        "normalisation", build, options, example, weights, code,
        f"{said} digits {asked.index} to {asked.index + count - 1}. Scale 1 and shift 0, as before training.{running}",
        chosen, len(data) - count + 1, names, batched=True, paints=False,
    )  # fmt: skip


def _times(
    weights: dict[str, np.ndarray], strength: float, only: tuple[str, ...]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Those weights × strength, and the code for it."""
    code = f"weights = {{k: v * {strength!r} if k.startswith({only!r}) else v for k, v in weights.items()}}"
    return {k: v * strength if k.startswith(only) else v for k, v in weights.items()}, [code] if strength != 1 else []


def _residual(asked: PieceRequest, chosen: dict[str, Any]) -> Case:
    example, code, said, total = _one_digit(asked)
    build = {"name": "residual", "inputs": 1, "outputs": 1, "stride": chosen["stride"], "seed": asked.seed}
    weights, drawn = _weights(build)
    weights, times = _times(weights, chosen["strength"], ("first", "second"))
    return Case(
        "residual", build, {"stride": chosen["stride"]}, example, weights, [*code, drawn, *times], f"{said}. {SEEDED}", chosen, total,
    )  # fmt: skip


def _inception(asked: PieceRequest, chosen: dict[str, Any]) -> Case:
    example, code, said, total = _one_digit(asked)
    build = {"name": "inception", "inputs": 1, "outputs": 1, "reduced": 1, "seed": asked.seed}
    weights, drawn = _weights(build)
    weights, times = _times(weights, chosen["strength"], ("",))
    return Case("inception", build, {}, example, weights, [*code, drawn, *times], f"{said}. {SEEDED}", chosen, total)


def _rows(asked: PieceRequest) -> tuple[np.ndarray, list[str], str, int]:
    """A digit as a sequence: its rows from top to bottom."""
    example, code, said, total = _one_digit(asked)
    return (
        example[0],
        [code[0], code[1].replace("[None]", "")],
        said.replace(": 8 × 8 pixels", ", row by row: 8 moments of 8 pixels"),
        total,
    )


def _recurrent(asked: PieceRequest, chosen: dict[str, Any]) -> Case:
    example, code, said, total = _rows(asked)
    build = {"name": "recurrent", "kind": chosen["kind"], "inputs": 8, "hidden": chosen["hidden"], "seed": asked.seed}
    weights, drawn = _weights(build)
    return Case(
        "recurrent", build, {"kind": chosen["kind"]}, example, weights, [*code, drawn], f"{said}. {SEEDED}", chosen, total,
    )  # fmt: skip


def _attention(asked: PieceRequest, chosen: dict[str, Any]) -> Case:
    width = 6
    if chosen["tokens"] != "words":
        example, code, said, total = _rows(asked)
        said, width = said.replace("moments", "tokens"), 8
        words = [f"row {t}" for t in range(8)]
    else:
        network = resolve.network(NetworkRequest(address="minilm"))
        if not asked.text.strip():
            raise UsageError("There is no sentence.", "Write a few words.")
        assert network.tokens is not None
        words = [token.text for token in network.tokens(asked.text)]
        if len(words) > 12:
            raise UsageError(f"This is {len(words)} tokens long; 12 are shown at most.", "Write a shorter sentence.")
        example = trace(network, asked.text)["embeddings"].numpy()[0, :, :width].astype(np.float64)
        code = [
            f'example = nm.trace(nm.load("minilm"), {asked.text!r})["embeddings"].numpy()[0, :, :{width}].astype("float64")'
        ]
        said, total = f"the first {width} of 384 numbers of each token's row in MiniLM's embedding", 0
    options = {"heads": HEADS[chosen["heads"]], "causal": chosen["causal"] == "yes"}
    build = {"name": "attention", "width": width, "head": chosen["head"], **options, "seed": asked.seed}
    if chosen["tokens"] == "trained":
        weights, draw, made = _trained(build, "The heads were")
    else:
        weights, drawn = _weights(build)
        weights, times = _times(weights, chosen["sharpness"], ("query", "key"))
        draw = [drawn, *times]
        made = f"{SEEDED} So whom a token heeds is chance here; how it is worked out is not."
    names = dict.fromkeys("tqk", words)
    return Case(
        "attention", build, options, example, weights, [*code, *draw], f"{said}. {made}", chosen, total, names,
        paints=chosen["tokens"] != "words",
    )  # fmt: skip


CASES: dict[str, Callable[[PieceRequest, dict[str, Any]], Case]] = {
    "dense": _dense, "convolution": _convolution, "pooling": _pooling, "normalisation": _normalisation,
    "residual": _residual, "inception": _inception, "recurrent": _recurrent, "attention": _attention,
}  # fmt: skip
