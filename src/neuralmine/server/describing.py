"""What there is to choose from, and what a lens or a network is."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from .. import datasets, optimizers, studies
from ..lens import find, summaries
from ..losses import LOSSES
from ..networks import catalogue
from ..sentences import stream_layers
from ..training import Settings
from ..types import Network
from . import resolve
from .requests import NetworkRequest


def _stream_of(network: Network) -> list[str]:
    return list(stream_layers(network)) if network.domain == "tokens" else []


def _preset(name: str) -> dict[str, Any]:
    preset = catalogue.PRESETS[name]
    return {
        "name": name,
        "summary": preset.summary,
        "sizes": preset.architecture["sizes"],
        "architecture": preset.architecture,
        "loss": preset.loss,
        "training": preset.training,
        "data": preset.data,
        "classes": preset.classes,
    }


def add(app: FastAPI) -> None:
    """The routes."""

    @app.get("/api/catalogue")
    def list_catalogue() -> dict[str, Any]:
        """Everything there is to choose from."""
        return {
            "networks": [_preset(name) for name in catalogue.PRESETS],
            "data": datasets.names(),
            "lenses": summaries(),
            "studies": studies.names(),
            "optimizers": optimizers.NAMES,
            "losses": LOSSES,
            "settings": {name: getattr(Settings(), name) for name in Settings.__dataclass_fields__},
        }

    @app.get("/api/lenses/{name}")
    def describe_lens(name: str) -> dict[str, Any]:
        """A lens's options, for a form."""
        found = find(name)
        options = [{key: getattr(option, key) for key in option.__dataclass_fields__} for option in found.options]
        return {"name": found.name, "summary": found.summary, "on": found.on, "nouns": found.nouns, "options": options}

    @app.post("/api/network")
    def describe_network(asked: NetworkRequest) -> dict[str, Any]:
        """A network's layers, where it comes from, and on what it was trained."""
        found = resolve.network(asked)
        return {
            "address": asked.address,
            "name": found.name,
            # A vocabulary is tens of thousands of words: the page asks the lenses for those it needs.
            "labels": found.labels if found.domain != "tokens" else (),
            "speaks": found.domain == "tokens" and bool(found.labels),
            "shape": found.shape,
            "loss": found.loss,
            "domain": found.domain,
            "layers": [{key: getattr(layer, key) for key in layer.__dataclass_fields__} for layer in found.layers],
            "untraced": dict(found.untraced),
            "parameters": sum(p.numel() for p in found.module.parameters()),
            "source": {key: getattr(found.source, key) for key in found.source.__dataclass_fields__},
            "data": resolve.data_of(asked.address),
            "blocks": _stream_of(found),
        }
