from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import UsageError
from ..lens import lens
from ..sentences import labels_of, stream_layers
from ..tracing import trace
from ..types import Check, Finding, Input, Network
from ..views import Lines, Table


@lens(reads="tokens")
def block_steps(network: Network, text: Input, *, block: int = 1) -> Finding:
    """One layer in slow motion: attention, add, norm, MLP, add, norm, each with what it really did.

    Where the parts of the block prove to fit together (each sum and norm is worked out and compared with what the
    network did), the steps are named so; "attention" and "MLP" put out what is then added, "add" and "norm" the words'
    new vectors. In a block built otherwise every part that puts out one vector a token is a step, under its own name.
    Numbers: "vectors" (steps × tokens × d), "norms" (steps × tokens: their lengths), "kept" (steps × tokens: the cosine
    with what came into the block), "state" (steps: 1 where the step puts out the words' vectors, 0 where it only adds).

    Options:
        block: which block, from 1.

    Raises UsageError for a block that is not there, NetworkError for a network that does not read text.

    >>> import neuralmine as nm  # doctest: +SKIP
    >>> print(nm.look("block_steps", nm.load("minilm"), "The Cat Chases Mice", block=2).text())  # doctest: +SKIP
    """
    names = [name for name in stream_layers(network) if "Norm" not in network.layer(name).kind]
    blocks = [
        layer.name
        for layer in network.layers
        if layer.name.count(".") == names[1].count(".") and layer.kind == network.layer(names[1]).kind
    ]
    if not 1 <= block <= len(blocks):
        raise UsageError(f"There are blocks 1 to {len(blocks)}, not {block}.", "Choose one of those.")
    own, before = blocks[block - 1], names[0] if block == 1 else blocks[block - 2]
    width = network.layer(before).shape[-1]
    inside = [
        layer.name for layer in network.layers
        if layer.name.startswith(own + ".") and layer.dims == "b t d" and layer.shape[-1] == width
    ]  # fmt: skip
    seen = trace(network, text, layers=[before, *inside, own])
    values = {name: seen[name].value[0].detach() for name in (before, *inside, own)}
    steps = _named(network, values, before, inside, own)
    named = bool(steps)
    if not named:
        steps = [(name.removeprefix(own + "."), name, values[name], False) for name in inside]
        steps.append(("the whole layer", own, values[own], True))
    start = values[before].numpy().astype(np.float64)
    vectors = np.stack([value.numpy() for _, _, value, _ in steps])
    norms = np.linalg.norm(vectors.astype(np.float64), axis=-1)
    kept = (vectors * start).sum(-1) / np.maximum(norms * np.linalg.norm(start, axis=-1), 1e-12)
    labels = labels_of(network.tokens(text) if network.tokens else ())
    short = [name for name, _, _, _ in steps]
    rows = tuple(
        (name, part.removeprefix(own + "."), float(norms[i].mean()), float(kept[i].mean()))
        for i, (name, part, _, _) in enumerate(steps)
    )
    gap = float((steps[-1][2] - values[own]).abs().max())
    return Finding(
        {"vectors": vectors, "norms": norms, "kept": kept, "state": np.array([s[3] for s in steps], dtype=np.int8)},
        (
            Table(f"layer {block}, step by step", ("step", "part", "mean length", "cosine with what came in"), rows),
            Lines("length of each word's vector, step by step", np.arange(len(steps)),
                  {label: norms[:, i] for i, label in enumerate(labels[:8])}, "step", "length"),
        ),
        (
            # Where the steps have no names the last is that output itself: nothing to compare.
            *([Check("the last step is the layer's own output", gap, None, None, gap < 1e-4, "Largest difference of a number.")] if named else ()),
            Check("kept of what came in", float(kept[-1].mean()), 0.0, None, None,
                  "Mean cosine of the vectors that left the layer with those that came in; unrelated vectors have 0."),
        ),
        summary=f"Layer {block}: {', '.join(short)}; after it the words keep a cosine of {kept[-1].mean():.2f} with what came in.",
        provenance={"tokens": labels, "steps": short, "parts": [part for _, part, _, _ in steps], "named": named},
    )  # fmt: skip


def _named(network: Network, values: dict[str, Any], before: str, inside: list[str], own: str) -> list[Any]:
    """Steps as (name, part, vectors, whether they are the words' vectors); empty when the parts do not add up."""
    import torch

    norms = [name for name in inside if "Norm" in network.layer(name).kind]
    if len(norms) != 2:
        return []

    def close(a: Any, b: Any) -> bool:
        return bool((a - b).abs().max() <= 1e-4 * max(1.0, float(b.abs().max())))

    def normed(name: str, state: Any) -> Any:
        with torch.no_grad():
            return network.module.get_submodule(name)(state)

    def added(parts: list[str], state: Any, fits: Any) -> str | None:
        # The last part that fits: a projection's dropout puts out the same numbers once more.
        return next((p for p in reversed(parts) if fits(state + values[p])), None)

    first, second = (inside.index(name) for name in norms)
    state = values[before]
    if close(values[norms[1]], values[own]):  # normed after adding, as in BERT
        one = added(inside[:first], state, lambda s: close(normed(norms[0], s), values[norms[0]]))
        middle = values[norms[0]]
        two = added(inside[first + 1 : second], middle, lambda s: close(normed(norms[1], s), values[norms[1]]))
        if one and two:
            return [
                ("attention", one, values[one], False), ("add", one, state + values[one], True), ("norm", norms[0], middle, True),
                ("MLP", two, values[two], False), ("add", two, middle + values[two], True), ("norm", norms[1], values[norms[1]], True),
            ]  # fmt: skip
    elif close(normed(norms[0], state), values[norms[0]]):  # normed before each part, as in GPT-2 and Llama
        one = added(inside[first + 1 : second], state, lambda s: close(normed(norms[1], s), values[norms[1]]))
        if one:
            middle = state + values[one]
            two = added(inside[second + 1 :], middle, lambda s: close(s, values[own]))
            if two:
                return [
                    ("norm", norms[0], values[norms[0]], False), ("attention", one, values[one], False), ("add", one, middle, True),
                    ("norm", norms[1], values[norms[1]], False), ("MLP", two, values[two], False), ("add", two, middle + values[two], True),
                ]  # fmt: skip
    return []
