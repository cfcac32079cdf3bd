"""load(): one way in for every network."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from ..errors import NetworkError, UnknownName, UsageError
from ..types import Network


def load(source: Any, **options: Any) -> Network:
    """A Network from a catalogue name, "hf:NAME-OR-PATH", a file, a run's folder, "module:function" of your own, or any
    torch.nn.Module.

    Options for the catalogue: `trained=True`, `seed=0`. For a module or "module:function": `shape`, `labels`,
    `loss`, `mean`, `std` (see `network_of`). For a run: `step`.
    Raises UnknownName, NetworkError or UsageError, each saying what there is and what to do.

    >>> load("64-16-10").labels[3]
    '3'
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(source, torch.nn.Module):
        from .torch_module import network_of

        return _with(network_of, source, options)
    if isinstance(source, Network):
        return source
    if not isinstance(source, (str, Path)):
        raise UsageError(
            f"A network cannot be loaded from {type(source).__name__}.", "Give a name, a path or a module."
        )
    from . import catalogue

    if str(source) in {*catalogue.ALIASES, *catalogue.PRESETS}:
        return _with(catalogue.load_preset, str(source), options)
    if str(source) == "minilm" or str(source).startswith("hf:"):
        from .text import load_text
        from .vision import is_image_classifier, load_vision

        sees = str(source) != "minilm" and is_image_classifier(str(source))
        return _with(load_vision if sees else load_text, str(source), options)
    from . import vision

    if str(source) in vision.NAMES:
        return _with(vision.load_vision, str(source), options)
    path = Path(source)
    if path.is_dir():
        from ..stores.runs import load_network

        return _with(load_network, path, options)
    if path.suffix and (path.exists() or path.suffix in (".safetensors", ".pt", ".pth")):
        from .files import load_file

        return _with(load_file, path, options)
    if ":" in str(source):
        return _from_python(str(source), options)
    raise UnknownName("network", source, [*catalogue.ALIASES, *catalogue.PRESETS, "minilm", *vision.NAMES])


def names() -> dict[str, str]:
    """The catalogue: name to one line."""
    from . import catalogue, vision

    return {
        **{name: preset.summary for name, preset in catalogue.PRESETS.items()},
        "minilm": "all-MiniLM-L6-v2, a sentence encoder of 6 layers (needs the text extra)",
        **vision.NAMES,
        "hf:NAME-OR-PATH": "any encoder, language model (text extra) or image classifier (vision extra) of "
        "transformers, safetensors only",
    }


def _with(loader: Any, source: Any, options: dict[str, Any]) -> Network:
    try:
        return loader(source, **options)
    except TypeError as error:
        if "keyword argument" not in str(error):
            raise
        raise UsageError(f"{error}.", "See help(neuralmine.load).") from None


def _from_python(address: str, options: dict[str, Any]) -> Network:
    from .torch_module import network_of

    module_name, _, attribute = address.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        made = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise NetworkError(f"{address!r} cannot be imported: {error}.", "Write package.module:function.") from None
    finally:
        sys.path.pop(0)
    import torch

    return network_of(made if isinstance(made, torch.nn.Module) else made(), **options)
