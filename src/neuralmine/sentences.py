"""A sentence on its way through a transformer: the residual stream, layer by layer, and who attends to whom."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from .errors import DataError, NetworkError, UsageError
from .lens import weights_hash
from .tracing import trace
from .types import Network, Token

# Everyday words from which sentences without meaning are drawn: the null of every relation between words.
WORDS = [
    "river",
    "gold",
    "stone",
    "water",
    "light",
    "house",
    "tree",
    "child",
    "bread",
    "road",
    "winter",
    "music",
    "paper",
    "green",
    "small",
    "heavy",
    "quiet",
    "early",
    "open",
    "holds",
    "finds",
    "turns",
    "keeps",
    "moves",
    "sees",
    "makes",
    "takes",
    "brings",
    "leaves",
    "under",
    "over",
    "with",
    "near",
    "after",
    "before",
    "slowly",
    "often",
    "never",
    "doctor",
    "window",
    "garden",
    "engine",
    "market",
    "table",
    "letter",
    "number",
    "summer",
    "colour",
    "forest",
    "animal",
    "village",
    "winter",
    "picture",
]


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """`states`: (layers + 1) × tokens × d, from the embedding to the last layer; `names` of the layers, in order;
    `attention`: layer name to heads × queries × keys."""

    tokens: tuple[Token, ...]
    names: tuple[str, ...]
    states: np.ndarray
    attention: dict[str, np.ndarray]


def stream_layers(network: Network) -> tuple[str, ...]:
    """The addresses of the residual stream: the embedding, every block, and last the final norm where there is one.

    Raises NetworkError for a network that does not read text.
    """
    if network.domain != "tokens":
        raise NetworkError("This lens needs a network that reads text.", "Load one: minilm, or hf:NAME-OR-PATH.")
    names = [layer.name for layer in network.layers]
    blocks = [name for name in names if re.search(r"\.\d+$", name) and "#" not in name]
    depth = min((name.count(".") for name in blocks), default=0)
    blocks = [name for name in blocks if name.count(".") == depth]
    if not blocks:
        raise NetworkError(
            "This network has no list of blocks, so there is no stream to follow.", "Try another network."
        )
    dims = {layer.name: layer for layer in network.layers}
    width = dims[blocks[-1]].shape
    first = min(i for i, name in enumerate(names) if name.startswith(blocks[0] + ".") or name == blocks[0])
    before = [name for name in names[:first] if dims[name].shape == width]
    after = [name for name in names[names.index(blocks[-1]) + 1 :] if dims[name].shape == width]
    if not before:
        raise NetworkError("The embedding of this network was not found.", "Try another network.")
    ends = [name for name in after if "Norm" in dims[name].kind][:1]
    # With a final norm, what transformers calls the last hidden state is the last block's after that norm.
    return (before[-1], *blocks[: -1 if ends else None], *(ends or ()))


def stream(network: Network, text: Any, *, attention: bool = False) -> Stream:
    """Run a text and keep the residual stream, as numpy; with `attention` also every head's weights.

    The last few are kept: several lenses look at one sentence at a time. The arrays are read-only.
    """
    if network.tokens is None:
        raise NetworkError("This lens needs a network that reads text.", "Load one: minilm, or hf:NAME-OR-PATH.")
    if not isinstance(text, str):
        raise DataError(f"This network reads text, not {type(text).__name__}.", "Give a sentence.")
    return _stream(network, weights_hash(network), text, attention)


@lru_cache(maxsize=32)
def _stream(network: Network, weights: str, text: str, attention: bool) -> Stream:
    """`weights` is there to notice that the network has changed."""
    assert network.tokens is not None
    names = stream_layers(network)
    heads = attention_layers(network) if attention else ()
    seen = trace(network, text, layers=[*names, *heads])
    states = np.stack([seen[name].numpy()[0] for name in names])
    looks = {name: seen[name].numpy()[0].copy() for name in heads}
    for array in (states, *looks.values()):
        array.flags.writeable = False
    return Stream(network.tokens(text), names, states, looks)


def attention_layers(network: Network) -> tuple[str, ...]:
    """One address of attention weights for each block, in order. Raises NetworkError when they are not to be seen."""
    found: dict[str, str] = {}
    for layer in network.layers:
        if layer.dims == "b h q k":
            block = re.match(r".*?\.\d+(?=\.|#|$)", layer.name)
            found.setdefault(block.group(0) if block else layer.name, layer.name)
    if not found:
        raise NetworkError("The attention weights of this network cannot be seen.", "Load it through hf:NAME-OR-PATH.")
    return tuple(found.values())


def labels_of(tokens: tuple[Token, ...]) -> list[str]:
    """Each token's text; a word that comes twice gets its place, so that rows and columns can be told apart."""
    texts = [token.text for token in tokens]
    return [f"{text} ({i})" if texts.count(text) > 1 else text for i, text in enumerate(texts)]


def random_sentences(count: int, words: int, seed: int) -> list[str]:
    """Sentences of words drawn at random: grammatical nonsense, the null of every relation between words."""
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, max(words, 2), replace=words > len(WORDS))) for _ in range(count)]


def cosines(vectors: np.ndarray) -> np.ndarray:
    """Every pair's cosine: … × t × d to … × t × t; 0 where a vector is 0."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=-1, keepdims=True)
    unit = np.divide(vectors, lengths, out=np.zeros(vectors.shape), where=lengths > 0)
    return unit @ np.swapaxes(unit, -1, -2)


def checked_word(tokens: tuple[Token, ...], word: int) -> int:
    """The place of a token. Raises UsageError when there is none there."""
    if not 0 <= word < len(tokens):
        names = ", ".join(f"{i} {t.text}" for i, t in enumerate(tokens[:20]))
        raise UsageError(f"There is no token {word}.", f"Choose one of: {names}.")
    return word
