"""The networks that come with Neuralmine: the essays' own, described here, with weights in `weights/`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import datasets
from ..architectures import build
from ..errors import NetworkError, UnknownName
from ..types import Dataset, Network, Source
from .files import load_file
from .torch_module import network_of

WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True, slots=True)
class Preset:
    """One network of the catalogue: what it is, on what and how it is trained."""

    summary: str
    data: str
    architecture: Mapping[str, Any]
    loss: str
    training: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = tuple("0123456789")


def _preset(summary: str, sizes: list[int], training: Mapping[str, Any], **more: Any) -> Preset:
    data = "digits" if sizes[0] == 64 else "mnist"
    return Preset(summary, data, {"name": "mlp", "sizes": sizes}, "squared", training, **more)


SGD = {"optimizer": "sgd", "lr": 0.5, "batch": 4, "epochs": 60}
PRESETS: dict[str, Preset] = {
    "64-1": replace(
        _preset("One output neuron, weighted by hand: is it a 1 and not a 0?", [64, 1], {}, classes=("0", "1")),
        architecture={"name": "mlp", "sizes": [64, 1], "bias": False},
    ),
    "64-2": replace(
        _preset("The same weights and their inverse, one output for 0 and one for 1", [64, 2], {}, classes=("0", "1")),
        architecture={"name": "mlp", "sizes": [64, 2], "bias": False},
    ),
    "64-10": _preset(
        "Ten outputs, no hidden layer", [64, 10], {"optimizer": "one_weight_at_a_time", "lr": 32.0, "epochs": 60}
    ),
    "64-16-10": _preset("One hidden layer of 16 neurons", [64, 16, 10], SGD),
    "64-16-16-10": _preset("Two hidden layers of 16 neurons", [64, 16, 16, 10], SGD),
    "784-16-16-10": _preset(
        "28 × 28 pixels, two hidden layers of 16: 13,002 weights and biases",
        [784, 16, 16, 10],
        {**SGD, "epochs": 30, "batch": 8},
    ),
}
PRESETS["best"] = Preset(
    "The most accurate plain net found: two wide ReLU layers, trained on slightly moved images",
    "digits",
    {"name": "mlp", "sizes": [64, 512, 256, 10], "activation": "relu", "output": "linear", "dtype": "float32"},
    "cross_entropy",
    {
        "optimizer": "adamw", "lr": 0.002, "batch": 64, "epochs": 300, "schedule": "cosine", "smoothing": 0.1,
        "shift": 1.0, "rotate": 10.0, "scale": 0.1, "average": 0.99,
    },
)  # fmt: skip
ALIASES = {"digits": "64-16-10"}


def preset(name: str) -> Preset:
    """The preset of that name. Raises UnknownName with the nearest names."""
    name = ALIASES.get(name, name)
    if name not in PRESETS:
        raise UnknownName("network", name, [*ALIASES, *PRESETS])
    return PRESETS[name]


def load_preset(name: str, *, trained: bool = True, seed: int = 0) -> Network:
    """A network of the catalogue, trained or as it was before training (the random start of that seed)."""
    found = preset(name)
    name = ALIASES.get(name, name)
    file = WEIGHTS / f"{name}.safetensors"
    if trained and found.training:
        if not file.exists():
            raise NetworkError(
                f"The weights of {name!r} are missing from this installation.", "Install neuralmine again."
            )
        loaded = load_file(file, name)
        return replace(loaded, source=replace(loaded.source, origin="bundled with Neuralmine"))
    network = untrained(found, seed, name)
    return network if found.training else _by_hand(network)


def untrained(found: Preset, seed: int = 0, name: str = "") -> Network:
    """A preset's network before training."""
    side = round(found.architecture["sizes"][0] ** 0.5)
    return network_of(
        build({**found.architecture, "seed": seed}),
        shape=(side, side),
        labels=found.classes,
        loss=found.loss,
        source=Source(f"random start, seed {seed}"),
        name=name,
    )


def data_of(name: str, **options: Any) -> Dataset:
    """The data set a preset is trained on; for the nets of 0s and 1s, only those."""
    found = preset(name)
    data = datasets.load(found.data, **options)
    return data if len(found.classes) == 10 else data.only(found.classes)


def _by_hand(network: Network) -> Network:
    """The essay's weights: +1 for the pixels in the middle, −1 for those around; a second output has them inverted."""
    import torch

    weights = -torch.ones(network.shape, dtype=torch.float64)
    rows, columns = network.shape
    weights[rows // 4 : -(rows // 4), columns // 4 : -(columns // 4)] = 1
    sheet = weights.reshape(1, -1)
    with torch.no_grad():
        for parameter in network.module.parameters():
            parameter.copy_(sheet if len(parameter) == 1 else torch.cat([-sheet, sheet]))
    return replace(network, source=Source("weighted by hand as the essay describes: middle +1, around −1"))
