"""The nouns: what the whole of Neuralmine talks about. Data only; nothing here loads torch."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from .atomic import write_folder
from .errors import DataError, NetworkError, UnknownName, UsageError
from .wire import pack

if TYPE_CHECKING:
    import torch

# What a lens may ask for, by annotation. The text names the option in forms and on the command line.
LayerName = Annotated[str, "layer"]
Unit = Annotated[int, "unit"]
Target = Annotated[str | int | None, "target"]
Input = Annotated[Any, "input"]

PREDICTED: Target = None  # the class the network itself chose
LAST: LayerName = "last"  # the last layer that fits the lens


@dataclass(frozen=True, slots=True)
class Between:
    """The inclusive range a number given as an option must lie in."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Layer:
    """An address in a network and what lives there.

    `name` is the module's path as `named_modules` spells it; `#k` marks the k-th further tensor the module
    puts out (a second call, a second output). `dims` is in einops style; `b` is the batch.
    """

    name: str
    kind: str
    dims: str
    shape: tuple[int, ...]
    parameters: int = 0


@dataclass(frozen=True, slots=True)
class Source:
    """Where a network's weights come from."""

    origin: str
    sha256: str = ""
    licence: str = ""
    trained_on: str = ""


@dataclass(frozen=True, slots=True)
class Token:
    """One piece of a text as the network reads it; `special` ones were added by the tokenizer, not by the writer."""

    text: str
    id: int
    special: bool


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What a network said: a score for every label, and the label with the highest."""

    labels: tuple[str, ...]
    scores: np.ndarray
    measure: str  # "probability" or "activation"

    @property
    def index(self) -> int:
        return int(np.argmax(self.scores))

    @property
    def label(self) -> str:
        return self.labels[self.index]

    @property
    def score(self) -> float:
        return float(self.scores[self.index])


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A torch module with its codec: how raw data goes in, what its output means, and where it came from.

    `encode(raw)` gives a batch (b first); `decode(output)` gives one Prediction per item of the batch.
    `layers` are in execution order; `untraced` names the modules that cannot be looked into, and why.
    """

    module: torch.nn.Module
    encode: Callable[[Any], torch.Tensor]
    decode: Callable[[torch.Tensor], list[Prediction]]
    labels: tuple[str, ...]
    layers: tuple[Layer, ...]
    domain: str  # "vector", "pixels" or "tokens"
    shape: tuple[int, ...]  # of one input, without the batch
    source: Source
    loss: str = "cross_entropy"
    name: str = ""
    untraced: Mapping[str, str] = field(default_factory=dict)
    tokens: Callable[[Any], tuple[Token, ...]] | None = None  # how a text is cut up; only for domain "tokens"
    spell: Callable[[int], str] | None = None  # the text of an entry of the vocabulary

    def layer(self, name: str) -> Layer:
        """The layer at that address. Raises UnknownName with the nearest addresses."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        if name in self.untraced:
            raise NetworkError(f"Layer {name!r} cannot be traced: {self.untraced[name]}.", "Choose another layer.")
        raise UnknownName("layer", name, [layer.name for layer in self.layers])


@dataclass(frozen=True, slots=True, eq=False)
class Activation:
    """A layer's tensor for one input, exactly as the layer put it out."""

    layer: Layer
    _value: Callable[[], torch.Tensor]

    @property
    def value(self) -> torch.Tensor:
        return self._value()

    @property
    def dims(self) -> str:
        return self.layer.dims

    def numpy(self) -> np.ndarray:
        return self.value.detach().cpu().numpy()


@dataclass(frozen=True, slots=True, eq=False)
class Trace(Mapping[str, Activation]):
    """One input's journey: layer name to Activation, in execution order, read-only."""

    network: Network
    input: torch.Tensor
    output: Any
    activations: Mapping[str, Activation]
    untraced: Mapping[str, str]

    def __getitem__(self, name: str) -> Activation:
        try:
            return self.activations[name]
        except KeyError:
            if name in self.untraced:
                raise NetworkError(
                    f"Layer {name!r} was not traced: {self.untraced[name]}.", "Choose another layer."
                ) from None
            raise UnknownName("layer", name, self.activations) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.activations)

    def __len__(self) -> int:
        return len(self.activations)

    @property
    def predictions(self) -> list[Prediction]:
        """What the network said of each item of the batch. Raises UsageError when the trace stopped early."""
        if self.output is None:
            raise UsageError(
                "This trace stopped before the output, so there is no prediction.", "Trace without `layers=`."
            )
        return self.network.decode(self.output)

    @property
    def prediction(self) -> Prediction:
        return self.predictions[0]


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Labelled inputs. `images` is n × (h × w, h × w × c, or features); `labels` is n whole numbers.

    Pictures go from 0 (no ink) to 1; features may be any numbers.
    `note` is what a reader must know before believing an accuracy measured here. `test_from` is the index at
    which a published test part begins, when the data come with one.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    note: str = ""
    source: str = ""
    test_from: int | None = None

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise DataError(
                f"{len(self.images)} images but {len(self.labels)} labels.", "Give one label for each image."
            )
        if len(self.images) == 0:
            raise DataError(f"The data set {self.name!r} is empty.", "Give at least one labelled image.")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.images.shape[1:])

    def take(self, which: Any, name: str = "") -> Dataset:
        """The chosen items (indices, a slice or a mask) as a data set of their own."""
        return Dataset(name or self.name, self.images[which], self.labels[which], self.classes, self.note, self.source)

    def only(self, classes: tuple[str, ...]) -> Dataset:
        """The images of these classes alone, renumbered in the given order. Raises UnknownName."""
        for name in classes:
            if name not in self.classes:
                raise UnknownName("class", name, self.classes)
        old = np.array([self.classes.index(name) for name in classes])
        keep = np.isin(self.labels, old)
        renumber = np.full(len(self.classes), -1)
        renumber[old] = np.arange(len(old))
        labels = renumber[self.labels[keep]]
        return Dataset(
            f"{self.name}, only {' and '.join(classes)}",
            self.images[keep],
            labels,
            tuple(classes),
            self.note,
            self.source,
        )

    def split(self, test: float = 0.25, seed: int = 0, sealed: float = 0.0) -> tuple[Dataset, Dataset]:
        """A training and a test part that share no image.

        The published split is used when there is one; else a random one, the same as scikit-learn's
        `train_test_split(test_size=test, random_state=seed)`. A `sealed` share of all images is in neither: it is taken
        from the training part, so that the test part is the same with and without. Raises UsageError when a part would
        be empty.
        """
        train, held_out = self.split_indices(test, seed, sealed)
        return self.take(train, f"{self.name} train"), self.take(held_out, f"{self.name} test")

    def split_indices(self, test: float = 0.25, seed: int = 0, sealed: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """The indices of the two parts that `split` makes."""
        train, held_out = self._two_parts(test, seed)
        return (train[~np.isin(train, self.sealed_indices(test, seed, sealed))] if sealed else train), held_out

    def sealed_indices(self, test: float = 0.25, seed: int = 0, sealed: float = 0.1) -> np.ndarray:
        """The indices that `split` leaves out of both parts: a larger sealed share holds all of a smaller one."""
        train, count = self._two_parts(test, seed)[0], round(sealed * len(self))
        if not 0 < count < len(train):
            raise UsageError(
                f"Cannot seal {sealed:g} of {len(self)} images: {count} of the {len(train)} training images.",
                "Seal a smaller share that is at least one image; 0.1 is usual.",
            )
        return np.sort(np.random.default_rng(seed).permutation(train)[:count])

    def _two_parts(self, test: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
        if self.test_from is not None:
            everything = np.arange(len(self))
            return everything[: self.test_from], everything[self.test_from :]
        from sklearn.model_selection import train_test_split

        try:
            train, held_out = train_test_split(np.arange(len(self)), test_size=test, random_state=seed)
        except ValueError as error:
            raise UsageError(
                f"Cannot split {len(self)} images with test={test}: {error}", "Use 0 < test < 1."
            ) from error
        return np.asarray(train), np.asarray(held_out)


@dataclass(frozen=True, slots=True)
class Check:
    """One piece of evidence: what was measured, what chance alone would give, and what that means."""

    name: str
    measured: float
    null: float | None = None
    interval: tuple[float, float] | None = None
    passed: bool | None = None
    meaning: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """What a lens saw: numbers, views of them, and the evidence. Numpy only, so it saves, sends and compares."""

    numbers: Mapping[str, np.ndarray]
    views: tuple[Any, ...] = ()
    checks: tuple[Check, ...] = ()
    summary: str = ""
    lens: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """The finding in words and tables, for a terminal or a screen reader."""
        parts = [self.summary, *(view.text() for view in self.views)]
        for check in self.checks:
            verdict = {True: "holds", False: "fails", None: "for your judgement"}[check.passed]
            null = "" if check.null is None else f", null {check.null:.4g}"
            parts.append(f"{check.name}: {check.measured:.4g}{null} ({verdict}). {check.meaning}")
        return "\n\n".join(part for part in parts if part)

    def save(self, folder: Path | str) -> Path:
        """Write finding.json, arrays.npz, finding.txt and a PNG and SVG of each view; the whole folder or nothing.

        Raises StoreError when the folder cannot be written.
        """
        document, arrays = pack(self)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **{f"a{i}": array for i, array in enumerate(arrays)})
        files: dict[str, bytes | str] = {
            "finding.json": json.dumps(document, indent=1, ensure_ascii=False),
            "arrays.npz": buffer.getvalue(),
            "finding.txt": self.text() + "\n",
        }
        for i, view in enumerate(self.views):
            stem = f"{i + 1:02d}-{view.kind}"
            files[f"{stem}.svg"], files[f"{stem}.png"] = view.to_svg(), view.to_png()
        return write_folder(folder, files)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something wrong with a training run: its name, why it happens, and what to try."""

    name: str
    what: str
    why: str
    advice: str
    stops: bool


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One training event. `weights` and `gradients` are filled when they were asked for.

    `capture()` gives all that is needed to go on from exactly here; call it before taking the next step.
    """

    index: int
    epoch: float
    metrics: Mapping[str, float]
    capture: Callable[[], Mapping[str, Any]]
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)
    gradients: Mapping[str, np.ndarray] = field(default_factory=dict)
    trouble: tuple[Trouble, ...] = ()
    last: bool = False
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A study's answer to one sentence of an essay."""

    quote: str
    source: str
    would_prove: str
    measured: str
    null: str
    verdict: str  # "holds", "partly", "not here" or "cannot be tested here"
    finding: Finding | None = None
