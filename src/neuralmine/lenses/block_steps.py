from __future__ import annotations

import numpy as np

from ..errors import UsageError
from ..lens import lens
from ..sentences import labels_of, stream_layers
from ..tracing import trace
from ..types import Check, Finding, Input, Network
from ..views import Lines, Table


@lens(reads="tokens")
def block_steps(network: Network, text: Input, *, block: int = 1) -> Finding:
    """One layer in slow motion: attention, adding, norm, MLP, adding, norm, each with what it really did.

    Every part of the block that puts out one vector a token, in the order in which they finished. Numbers: "norms"
    (steps × tokens: length of what the part put out), "kept" (steps × tokens: its cosine with the vector that came
    into the block: 1 where nothing new was added, near 0 for what only adds).

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
    before = names[0] if block == 1 else blocks[block - 2]
    width = network.layer(before).shape[-1]
    inside = [
        layer.name for layer in network.layers
        if layer.name.startswith(blocks[block - 1] + ".") and layer.dims == "b t d" and layer.shape[-1] == width
    ]  # fmt: skip
    steps = [*inside, blocks[block - 1]]
    seen = trace(network, text, layers=[before, *steps])
    start = seen[before].numpy()[0].astype(np.float64)
    values = np.stack([seen[name].numpy()[0] for name in steps]).astype(np.float64)
    norms = np.linalg.norm(values, axis=-1)
    lengths = np.maximum(norms * np.linalg.norm(start, axis=-1), 1e-12)
    kept = (values * start).sum(-1) / lengths
    tokens = network.tokens(text) if network.tokens else ()
    short = [name.removeprefix(blocks[block - 1] + ".") if name != steps[-1] else "the whole layer" for name in steps]
    rows = tuple(
        (short[i], network.layer(name).kind, float(norms[i].mean()), float(kept[i].mean()))
        for i, name in enumerate(steps)
    )
    labels = labels_of(tokens)
    return Finding(
        {"norms": norms, "kept": kept},
        (
            Table(f"layer {block}, step by step", ("part", "kind", "mean length", "cosine with what came in"), rows),
            Lines("length of each word's vector, step by step", np.arange(len(steps)),
                  {label: norms[:, i] for i, label in enumerate(labels[:8])}, "step", "length"),
        ),
        (Check("kept of what came in", float(kept[-1].mean()), 0.0, None, None,
               "Mean cosine of the vectors that left the layer with those that came in; unrelated vectors have 0."),),
        summary=f"Layer {block} has {len(steps)} steps; after it the words keep a cosine of {kept[-1].mean():.2f} with what came in.",
        provenance={"tokens": labels, "steps": short},
    )  # fmt: skip
