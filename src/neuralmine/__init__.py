"""Neuralmine: watch a neural network turn data into meaning, layer by layer.

Nouns: Network, Layer, Trace, Activation, Finding, View, Check, Dataset, Step, Verdict.
Verbs: load, trace, look, train, render, report, serve.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from . import datasets
    from .lens import look
    from .networks import load
    from .networks.edited import edited
    from .reporting import render, report
    from .server import serve
    from .stores.findings import load_finding
    from .stores.recordings import load_recording
    from .studies import study
    from .tracing import trace
    from .training import train
    from .types import Activation, Check, Dataset, Finding, Layer, Network, Prediction, Step, Trace, Verdict
    from .views import View
    from .watching import watch

_WHERE = {
    "load": "networks", "edited": "networks.edited", "trace": "tracing", "look": "lens",
    "train": "training", "render": "reporting", "report": "reporting", "serve": "server", "load_finding": "stores.findings",
    "load_recording": "stores.recordings", "watch": "watching", "study": "studies",
    **dict.fromkeys(
        ("Activation", "Check", "Dataset", "Finding", "Layer", "Network", "Prediction", "Step", "Trace", "Verdict"), "types"
    ),
    "View": "views",
}  # fmt: skip
__all__ = [
    "Activation", "Check", "Dataset", "Finding", "Layer", "Network", "Prediction", "Step", "Trace", "Verdict", "View",
    "datasets", "edited", "load", "load_finding", "load_recording", "look", "render", "report", "serve", "study", "trace", "train",
    "watch",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    # Nothing is imported until it is asked for: `import neuralmine` and listing lenses load no torch.
    if name == "datasets":
        return importlib.import_module(".datasets", __name__)
    if name not in _WHERE:
        raise AttributeError(f"module 'neuralmine' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_WHERE[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
