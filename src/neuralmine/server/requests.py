"""What the page may ask, as pydantic models: the one place where wire types are written."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class WeightEdit(Strict):
    parameter: str
    index: list[int]
    value: float


class NetworkRequest(Strict):
    """A network's address ("64-16-10", "64-16-10:untrained", "run:ID", "run:ID@120") and what is changed by hand."""

    address: str = "64-16-10"
    weights: list[WeightEdit] = []
    off: dict[str, list[int]] = {}


class DataRequest(Strict):
    """A data set's name or path, the part of it, and how it is split; `classes` keeps only some.

    A `sealed` share is in no part, not even in "all".
    """

    name: str = "digits"
    part: Literal["train", "test", "all"] = "test"
    seed: int = 0
    test: float = Field(default=0.25, gt=0, lt=1)
    sealed: float = Field(default=0, ge=0, lt=1)
    classes: list[str] | None = None


class InputRequest(Strict):
    """A text, or one image: given pixel by pixel, by its place in a data set, or a photo.

    A photo is a bundled one's name or an uploaded one's id. What is done to it is counted as the network sees it:
    `blur`, `darkness` and `noise` from 0 to 1, and circles wiped out (row, column, radius in pixels).
    """

    text: str | None = None
    photo: str | None = None
    blur: float = Field(default=0, ge=0, le=1)
    darkness: float = Field(default=0, ge=0, le=1)
    noise: float = Field(default=0, ge=0, le=1)
    wiped: list[tuple[float, float, float]] = Field(default=[], max_length=2000)
    pixels: list[float] | None = None
    data: DataRequest | None = None
    index: int = 0


class LookRequest(Strict):
    lens: str
    network: NetworkRequest = NetworkRequest()
    input: InputRequest | None = None
    data: DataRequest | None = None
    options: dict[str, Any] = {}


class RunRequest(Strict):
    """A new training run; `start` is a network whose fitting weights it begins with."""

    data: DataRequest = DataRequest()
    hidden: list[int] = [16]
    activation: str = "sigmoid"
    loss: Literal["squared", "cross_entropy"] = "squared"
    bias: bool = True
    start: str | None = None
    only: int | None = None
    settings: dict[str, Any] = {}
    playing: bool = False


class ReportRequest(Strict):
    """Findings to be put into one HTML file."""

    title: str = "Neuralmine report"
    looks: list[LookRequest]


class ControlRequest(Strict):
    """What a running training is told: play, pause, one step, at what speed, with which settings; go back to a step."""

    do: Literal["play", "pause", "step", "change", "rewind", "stop"]
    speed: Literal["slow", "medium", "fast", "full"] | None = None
    settings: dict[str, Any] = {}
    to: int | None = None


class ExamplesRequest(Strict):
    """Where to look for the patches that excite a network's maps: the bundled tiles, or a folder of pictures."""

    network: NetworkRequest = NetworkRequest(address="squeezenet")
    folder: str | None = None


class DreamRequest(Strict):
    """A dream: a photo, a network, and its layers ("all", or names with commas); or one unit of a layer, or a class."""

    network: NetworkRequest = NetworkRequest(address="squeezenet")
    photo: str = "chelsea"
    layers: str = "all"
    unit: int | None = None
    target: str | None = None
    settings: dict[str, float] = {}


class DreamOrder(Strict):
    """What a dream is told: stop, go on, or climb differently from here."""

    do: Literal["stop", "resume", "change"]
    settings: dict[str, float] = {}


Pace = Literal["paused", "slow", "full"]


class RaceRequest(Strict):
    """Optimizers raced from one start on the same batches; an empty rate is swept.

    `start` is "random" (made from the seed), "own" (the network's), or the id of a start that was moved. `changes` are
    rates from a step on: [step, optimizer, rate].
    """

    network: NetworkRequest = NetworkRequest()
    data: DataRequest = DataRequest(part="train")
    optimizers: str = "sgd,momentum,adam,lbfgs"
    steps: int = Field(default=60, ge=2, le=2000)
    batch: int = Field(default=32, ge=1, le=10000)
    lr: str = ""
    limit: int = Field(default=0, ge=0)
    start: str = "random"
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    pace: Pace = "full"
    changes: list[tuple[int, str, float]] = Field(default=[], max_length=1000)


class RaceOrder(Strict):
    """What a race is told: other rates from the next step on, how fast to go, or to stop."""

    stop: bool = False
    pace: Pace | None = None
    rates: dict[str, float] = {}


class RaceStart(Strict):
    """A place of the plane of a race that is seen now (by its number), to start from."""

    plane: int
    x: float = Field(allow_inf_nan=False)
    y: float = Field(allow_inf_nan=False)


class RecordingRequest(Strict):
    """A recording by its name or folder, or a training run by run:NAME."""

    address: str


class SheetRequest(RecordingRequest):
    """A tensor ("weights/…", "gradients/…", "trace/…") of a step, or its change since the one before, from a row and
    column on; of one input of the batch, where it is about them."""

    step: int
    name: str
    entry: int = Field(default=0, ge=0)
    change: bool = False
    row: int = Field(default=0, ge=0)
    column: int = Field(default=0, ge=0)


class CellRequest(RecordingRequest):
    """One number of a tensor by its place, counted flat."""

    step: int
    name: str
    index: int = Field(ge=0)


class InputsRequest(RecordingRequest):
    """Some of the traced inputs, as pictures."""

    indices: list[int] = Field(max_length=100)


class ToyRequest(Strict):
    """A toy problem and a small net for it; `weights` are all of them in a row, of a net that had so many updates."""

    problem: Literal["xor", "spirals", "circles"] = "xor"
    points: int = Field(default=200, ge=8, le=2000)
    noise: float = Field(default=0.3, ge=0, le=1)
    hidden: list[Annotated[int, Field(ge=1, le=8)]] = Field(default=[4, 4], max_length=4)
    activation: Literal["identity", "sigmoid", "tanh", "relu", "leaky_relu", "gelu"] = "tanh"
    optimizer: Literal["gradient_descent", "sgd", "momentum", "adagrad", "rmsprop", "adam"] = "adam"
    lr: float = Field(default=0.03, gt=0, le=100)
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    weights: list[float] | None = Field(default=None, max_length=1000)
    updates: int = Field(default=0, ge=0)


class ToyOrder(Strict):
    """What a toy is told. `set` moves one weight (the first of a movement is what undo goes back to), `change` is of the training."""

    do: Literal["play", "pause", "step", "set", "undo", "redo", "change"]
    speed: Literal["slow", "medium", "fast"] | None = None
    weight: WeightEdit | None = None
    first: bool = True
    optimizer: Literal["gradient_descent", "sgd", "momentum", "adagrad", "rmsprop", "adam"] | None = None
    lr: float | None = Field(default=None, gt=0, le=100)


class ToyPicture(Strict):
    """How finely the neurons' maps are drawn, and the place of the plane that is opened to its arithmetic."""

    points: int = Field(default=21, ge=3, le=101)
    place: tuple[float, float] | None = None


class NumberEdit(Strict):
    """One given number of a piece's arithmetic, changed by hand."""

    array: str
    index: list[int]
    value: float = Field(allow_inf_nan=False)


class PieceRequest(Strict):
    """An architecture piece worked on one example; `upstream` is the slope of the loss that comes in at the output."""

    piece: str
    options: dict[str, int | float | str | bool] = {}
    index: int = Field(default=0, ge=0)
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    text: str = Field(default="The cat chases mice", max_length=80)
    upstream: Literal["ones", "seeded"] = "seeded"
    edits: list[NumberEdit] = Field(default=[], max_length=500)


class PieceNumberRequest(PieceRequest):
    """One number of it, opened; where an index is null, all numbers along that axis."""

    array: str
    at: list[int | None]


class MethodRequest(Strict):
    """An experiment of many trainings: on growing parts of the data, or with one ingredient at a time."""

    kind: Literal["scaling", "ablation"]
    network: NetworkRequest = NetworkRequest()
    data: DataRequest = DataRequest(part="train")
    seeds: int = Field(default=3, ge=2, le=50)
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    test: float = Field(default=0.25, gt=0, lt=1)
    optimizer: str = "adam"
    lr: float = Field(default=0.02, gt=0, le=1e6)
    batch: int = Field(default=32, ge=1, le=10000)
    sizes: int = Field(default=6, ge=3, le=30)
    updates: int = Field(default=800, ge=1, le=1_000_000)
    ingredients: str = ""
    epochs: int = Field(default=20, ge=1, le=100_000)
    limit: int = Field(default=0, ge=0)
