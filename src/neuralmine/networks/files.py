"""Networks in files: safetensors with the architecture in the metadata. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..architectures import build
from ..atomic import write_file
from ..errors import NetworkError
from ..types import Network, Source
from .torch_module import check_weights, network_of

FORMAT = "neuralmine-network-1"


def save(network: Network, path: Path | str, architecture: Mapping[str, Any], trained_on: str = "") -> Path:
    """Write a network's weights with its architecture, whole or not at all.

    `architecture` is what `architectures.build` takes: {"name": "mlp", "sizes": [64, 16, 10], ...}.
    Raises StoreError when the place cannot be written.
    """
    from safetensors.torch import save as serialise

    tensors = {name: tensor.contiguous() for name, tensor in network.module.state_dict().items()}
    about = {
        "format": FORMAT,
        "architecture": json.dumps(dict(architecture)),
        "labels": json.dumps(network.labels),
        "loss": network.loss,
        "shape": json.dumps(network.shape),
        "trained_on": trained_on,
    }
    return write_file(path, serialise(tensors, about))


def load_file(path: Path | str, name: str = "") -> Network:
    """Read a network that `save` wrote. Raises NetworkError for any other file, saying what to do instead."""
    import torch  # safetensors reads into torch's memory
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if path.suffix in (".pt", ".pth", ".pkl", ".bin", ".ckpt"):
        raise NetworkError(
            f"{path} may be a pickle, which can run any code when opened, so it is not opened.",
            "Load it in Python where you trust it and pass the module: neuralmine.load(module, shape=…).",
        )
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            tensors: dict[str, torch.Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    except FileNotFoundError:
        raise NetworkError(f"There is no file {path}.", "Check the path.") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise NetworkError(f"{path} cannot be read as safetensors: {error}.", "Save the network again.") from None
    if about.get("format") != FORMAT:
        raise NetworkError(
            f"{path} holds weights but not the network they belong to.",
            "Build the module in Python, load the weights into it, and pass it: neuralmine.load(module, shape=…).",
        )
    architecture = json.loads(about["architecture"])
    module = build(architecture)
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise NetworkError(f"{path}: the weights do not fit their architecture. {error}", "Save it again.") from None
    check_weights(module)
    return network_of(
        module,
        shape=json.loads(about["shape"]),
        labels=json.loads(about["labels"]),
        loss=about["loss"],
        source=Source(str(path), hashlib.sha256(path.read_bytes()).hexdigest(), "", about["trained_on"]),
        name=name or path.stem,
    )
