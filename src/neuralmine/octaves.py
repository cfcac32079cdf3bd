"""DeepDream: climbing what a layer answers, from a photo, small sizes first; the photo keeps its own size.

One step shifts the picture at random, takes the gradient of the objective (a large picture's tile by tile, each with a
margin around it), divides it by its mean size and adds it to the picture. The sizes (octaves) go from small to large;
what a size added is enlarged and laid over the photo at the next. Source: Mordvintsev, Olah and Tyka (2015),
"Inceptionism" and the notebook "DeepDream".
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .attribution import class_index, scores_of
from .dreaming import reach as _reach
from .errors import DataError, NetworkError, NeuralmineError, UnknownName, UsageError
from .fields import field_of
from .lens import array_hash, weights_hash
from .moving import notes_of, write_picture
from .pictures import fitted, opened
from .tracing import trace
from .types import Layer, Network, Trouble

if TYPE_CHECKING:
    import torch

LONGEST = 4096  # pixels; a photo's longer side beyond this is reduced, so that memory stays bounded
RUNGS = 16  # layers at most in a ladder nobody chose
PLACES = 256  # of a guide's maps, at most, that the picture's places choose among
# Layers that only pass on, squash or rescale what the layer before them found: no rungs of their own.
_PASSING = (
    *("ReLU", "Sigmoid", "Tanh", "GELU", "SiLU", "Hardswish", "ELU", "Mish", "Softmax", "Softplus", "Activation"),
    *("Norm", "Dropout", "DropPath", "Pad", "Identity", "Flatten"),
)
_RANGES = {
    "octaves": (1, 12), "scale": (1.05, 4), "steps": (1, 1000), "strength": (0.01, 100), "jitter": (0, 512),
    "tile": (64, 4096), "budget": (0, 0.5), "smooth": (0, 10), "seed": (0, 2**31 - 1),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Settings:
    """How to climb.

    octaves, scale: how many sizes, and how much larger each is than the one before it.
    steps, strength: steps a size, and how far one moves the picture on average, in 255ths.
    jitter: largest random shift before a step, in pixels. smooth: sd of the blur of each gradient, in pixels.
    tile: side of the squares in which a large picture's gradient is taken.
    budget: L2 of the whole change per value (0..1) that it is brought to at the end; 0 leaves it as it came.
    """

    octaves: int = 3
    scale: float = 1.4
    steps: int = 10
    strength: float = 2.0
    jitter: int = 16
    tile: int = 512
    budget: float = 0.0
    smooth: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
                raise UsageError(
                    f"{name} is {value!r}; it must lie from {low:g} to {high:g}.", "Choose a value in between."
                )
            if name not in ("scale", "strength", "budget", "smooth") and value != int(value):
                raise UsageError(f"{name} is {value!r}.", "Give a whole number.")


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A photo before a network: `photo` is colours × rows × columns, 0..1, and `network × span + low` is what it is fed.

    `free` says that the network runs on any size, as far as it is needed; `note` what was done to the photo.
    """

    network: Network
    photo: np.ndarray
    low: torch.Tensor
    span: torch.Tensor
    free: bool
    note: str = ""

    def fed(self, picture: torch.Tensor) -> torch.Tensor:
        """A picture (colours × rows × columns, 0..1) as the network takes it."""
        batch = (picture * self.span + self.low)[None]
        return batch if self.free else batch.reshape(1, *self.network.shape)


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """What to climb: a layer's mean square; the mean of one of its units; a class; or likeness to a guide's values."""

    layer: str  # "" for the network's output
    unit: int | None = None
    target: int | None = None
    guide: torch.Tensor | None = None  # places × channels
    name: str = ""
    stride: tuple[int, int] = (0, 0)  # of the layer's places in pixels; 0 where tiles cannot be laid
    margin: int = 0  # pixels around a tile that its gradient depends on
    placed: bool = False  # whether the layer's places can be told apart by tile


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """The picture after one step, and the objective before it. `picture` and `capture()` are to be taken before the next.

    octave and step count from 0; the last frame is the whole dream, in the photo's size and at its budget.
    """

    octave: int
    octaves: int
    step: int
    steps: int
    objective: float
    tensor: torch.Tensor
    done: float  # the share of the work, by the pixels of each octave
    trouble: tuple[Trouble, ...] = ()
    last: bool = False
    factor: float = 1.0  # that brought the change to the budget
    reach: float = 0.0  # L2 per value of the change before that; only in the last

    @property
    def picture(self) -> np.ndarray:
        """Rows × columns × 3, 0..1, in the size of this octave."""
        return shown(self.tensor.numpy())

    def capture(self) -> dict[str, Any]:
        """All that is needed to go on from here, with the same settings or others."""
        return {"octave": self.octave, "step": self.step + 1, "picture": self.tensor.numpy().copy()}


@dataclass(frozen=True, slots=True, eq=False)
class Dream:
    """One finished dream. Pictures are colours × rows × columns; `objective` has a value before each step."""

    scene: Scene
    wanted: Wanted
    picture: np.ndarray
    objective: np.ndarray
    before: float  # objective of the photo, and of the dream, in full size
    after: float
    factor: float
    reach: float  # L2 per value of the change, as the steps had made it
    note: str = ""


# ── The photo and what is asked ───────────────────────────────────────────────────────────────────────────────────────


def photo_of(network: Network, image: Any, longest: int = LONGEST) -> tuple[np.ndarray, str]:
    """A photo in its own size as colours × rows × columns, 0..1, with as many colours as the network takes.

    Arrays of fractions stay as they are; everything else is opened as 8 bits. Raises DataError for what is no picture,
    NetworkError for a network that takes neither grey nor red, green and blue.
    """
    colours = network.shape[0] if len(network.shape) == 3 else 1
    if colours not in (1, 3) or len(network.shape) not in (2, 3):
        raise NetworkError(
            f"This network takes inputs of shape {network.shape}, not grey or colour pictures.", "Load another network."
        )
    if hasattr(image, "detach"):
        image = image.detach().cpu().numpy()
    if isinstance(image, (list, tuple)):
        image = np.asarray(image)
    note = ""
    if isinstance(image, np.ndarray) and image.dtype.kind == "f":
        picture = _fractions(network, image, colours)
    else:
        if isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[0] in (1, 3) and image.shape[2] > 4:
            image = np.moveaxis(image, 0, -1)
        whole = opened(image) if isinstance(image, np.ndarray) else _whole(image)
        if max(whole.shape[:2]) > longest:
            before = whole.shape[:2]
            whole = _reduced(whole, longest)
            note = "The photo of {1:,} × {0:,} pixels was reduced to {3:,} × {2:,}.".format(*before, *whole.shape[:2])
        picture = np.ascontiguousarray(np.moveaxis(whole, -1, 0), dtype=np.float32)
        picture /= np.float32(255)
    if len(picture) == 3 and colours == 1:
        grey = bool((picture == picture[:1]).all())
        picture = picture[:1].copy() if grey else picture.mean(0, keepdims=True)
    return picture, note


def _fractions(network: Network, image: np.ndarray, colours: int) -> np.ndarray:
    picture = image.reshape(network.shape) if image.ndim == 1 and image.size == np.prod(network.shape) else image
    if picture.ndim == 2:
        picture = np.broadcast_to(picture, (colours, *picture.shape))
    elif picture.ndim == 3 and picture.shape[0] not in (1, 3) and picture.shape[-1] in (1, 3):
        picture = np.moveaxis(picture, -1, 0)
    if picture.ndim != 3 or picture.shape[0] not in (1, 3) or not picture.size:
        raise DataError(f"An array of shape {image.shape} is no picture.", "Give rows × columns × 3.")
    if not (np.isfinite(picture).all() and picture.min() >= 0 and picture.max() <= 1):
        raise DataError("The picture's values must be numbers from 0 to 1.", "Divide 0 … 255 by 255; replace NaN.")
    if len(picture) < colours:
        picture = np.broadcast_to(picture, (colours, *picture.shape[1:]))
    if max(picture.shape[1:]) > LONGEST:
        raise DataError(f"The array has shape {image.shape}; at most {LONGEST} are taken.", "Make it smaller.")
    return np.array(picture, dtype=np.float32)


def _whole(source: Any) -> np.ndarray:
    """A photo in full: `opened` reduces large ones, which no network needs whole, but a dream does."""
    import io
    import warnings

    from PIL import Image, ImageOps

    from .pictures import SHORTER

    small = opened(source)
    if min(small.shape[:2]) < SHORTER:
        return small
    if isinstance(source, (bytes, bytearray, memoryview)):
        source = io.BytesIO(bytes(source))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = source if isinstance(source, Image.Image) else Image.open(source)
            image = ImageOps.exif_transpose(image)
        except (Image.DecompressionBombError, OSError, ValueError):
            return small  # PIL alone is stricter than `opened`
        image.thumbnail((LONGEST, LONGEST), Image.Resampling.BICUBIC)
        if image.mode not in ("RGB", "RGBA", "L", "I;16"):
            image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        return opened(np.asarray(image))


def _reduced(picture: np.ndarray, longest: int) -> np.ndarray:
    from PIL import Image

    rows, columns = picture.shape[:2]
    scale = longest / max(rows, columns)
    size = max(1, round(columns * scale)), max(1, round(rows * scale))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


def scene_of(network: Network, image: Any, layers: Sequence[str] = (), longest: int = LONGEST) -> Scene:
    """The photo before the network, in its own size if the network runs on any as far as these layers ("" its output).

    Raises DataError and NetworkError as `photo_of` does.
    """
    import torch

    photo, note = photo_of(network, image, longest)
    shape = network.shape if len(network.shape) == 3 else (1, *network.shape)
    dark, bright = (
        torch.as_tensor(network.encode(np.full(network.shape, value, dtype=np.float32)))[0].reshape(shape)[:, :1, :1]
        for value in (0.0, 1.0)
    )
    free = len(network.shape) == 3 and all(
        _runs(network, name, (shape[1] + 21, shape[2] + 37)) for name in dict.fromkeys(layers)
    )
    if not free and photo.shape[1:] != shape[1:]:
        eight = np.rint(np.moveaxis(np.broadcast_to(photo, (3, *photo.shape[1:])), 0, -1) * 255).astype(np.uint8)
        photo = (
            fitted(eight, (shape[1], shape[2]))[: shape[0]]
            if shape[0] == 3
            else fitted(eight, (shape[1], shape[2])).mean(0, keepdims=True)
        )
        note = (
            f"This network runs on {shape[1]} × {shape[2]} pixels only, so the middle of the photo was fitted to that."
        )
    return Scene(network, photo, dark, bright - dark, free, note)


def _runs(network: Network, layer: str, size: tuple[int, int]) -> bool:
    """Whether the network gets as far as the layer on a picture of that size, and answers in the same form."""
    import torch

    try:
        values = _values(network, torch.zeros((1, network.shape[0], *size)), layer)
    except (NeuralmineError, RuntimeError, ValueError):
        return False
    return not layer or values.ndim == len(network.layer(layer).shape)


def wanted_of(
    scene: Scene, *, layer: str = "", unit: int | None = None, target: str | int | None = "", guide: Any = None
) -> Wanted:
    """What is asked for, checked against the network.

    Raises UnknownName for a layer or class that does not exist, UsageError for a unit that does not, or for a class
    together with a layer, a unit or a guide.
    """
    network = scene.network
    if target not in (None, ""):
        if layer or unit is not None or guide is not None:
            raise UsageError("A class is the network's output: it goes with no layer, unit or guide.", "Leave one out.")
        scores = scores_of(
            trace(network, network.encode(np.zeros(network.shape, np.float32)), layers=[], output=True).output
        )
        index = class_index(network, scores, target)
        label = network.labels[index] if index < len(network.labels) else str(index)
        return _tiled(scene, Wanted("", target=index, name=f"the class {label}"))
    chosen = network.layer(layer) if layer else ladder(network)[-1]
    if unit is not None and guide is not None:
        raise UsageError("Give a unit or a guide, not both.", "Leave one out.")
    if unit is not None:
        axis = _axis(chosen)
        if not 0 <= unit < chosen.shape[axis]:
            raise UsageError(
                f"{chosen.name} has units 0 to {chosen.shape[axis] - 1}, not {unit}.", "Choose one of those."
            )
    named = chosen.name if unit is None else f"{chosen.name}, unit {unit}"
    wanted = _tiled(scene, Wanted(chosen.name, unit, name=named))
    return wanted if guide is None else replace(wanted, guide=_guide(scene, chosen, guide), name=f"{named}, guided")


def _axis(layer: Layer) -> int:
    dims = layer.dims.split()
    found = next((dims.index(letter) for letter in ("c", "d") if letter in dims), None)
    if found is None:
        raise UsageError(f"{layer.name} has dims {layer.dims!r}, so no units.", "Leave the unit out.")
    return found


def _tiled(scene: Scene, wanted: Wanted) -> Wanted:
    """With the layer's stride and how far its places see, where tiles can be laid."""
    if not scene.free:
        return wanted
    layer = wanted.layer or next((x.name for x in reversed(scene.network.layers) if _is_maps(x)), "")
    if not layer or not _is_maps(scene.network.layer(layer)):
        return wanted
    seen = field_of(scene.network, layer)
    stride = (0, 0) if seen.whole else seen.stride
    if min(stride) < 1:
        # What a place sees is not known: tiles are laid all the same, for memory, and their seams are blurred by jitter.
        return replace(wanted, stride=(1, 1), margin=max(scene.network.shape[1:]))
    return replace(
        wanted, stride=(int(stride[0]), int(stride[1])), margin=int(max(seen.size)), placed=bool(wanted.layer)
    )


def _is_maps(layer: Layer) -> bool:
    return layer.dims == "b c h w" and layer.shape[2] * layer.shape[3] > 1


def _guide(scene: Scene, layer: Layer, guide: Any) -> torch.Tensor:
    if not isinstance(guide, (str, Path, np.ndarray)):
        raise UsageError(f"A guide cannot be {type(guide).__name__}.", "Give a picture's path, or an array.")
    if not _is_maps(layer):
        raise UsageError(f"A guide needs a layer with maps; {layer.name} has dims {layer.dims!r}.", "Choose another.")
    other = scene_of(scene.network, guide, [layer.name])
    import torch

    picture = torch.as_tensor(other.photo)
    if scene.free:
        scale = max(scene.network.shape[1:]) / max(picture.shape[1:])
        picture = resized(picture, (max(32, round(picture.shape[1] * scale)), max(32, round(picture.shape[2] * scale))))
    values = _values(scene.network, other.fed(picture), layer.name)[0].flatten(1).T
    return values[:: max(1, math.ceil(len(values) / PLACES))].contiguous()


# ── The gradient ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _values(network: Network, fed: torch.Tensor, layer: str) -> torch.Tensor:
    if layer:
        return trace(network, fed, layers=[layer])[layer].value
    return scores_of(trace(network, fed, layers=[], output=True).output)


def _excited(values: torch.Tensor, wanted: Wanted, layer: Layer | None) -> torch.Tensor:
    """The objective at each place (the last two axes, of maps): its mean is what is climbed."""
    if wanted.target is not None:
        return values[:, wanted.target]
    if wanted.guide is not None:
        return (values[0].flatten(1).T @ wanted.guide.T).max(1).values.view(values.shape[2:])
    if wanted.unit is not None and layer is not None:
        return values.select(_axis(layer), wanted.unit)
    return values.square()


def _own(
    each: torch.Tensor, core: Sequence[slice], seen: Sequence[slice], wanted: Wanted, size: Sequence[int]
) -> torch.Tensor:
    """The places that belong to the tile, not to its margin; the last tile has all that are left."""
    if not wanted.placed or all(s.stop - s.start == n for s, n in zip(seen, size, strict=True)):
        return each
    rows, columns = (
        slice((c.start - s.start) // step, None if c.stop == n else (c.stop - s.start) // step)
        for c, s, step, n in zip(core, seen, wanted.stride, size, strict=True)
    )
    return each[..., rows, columns]


def gradient_of(scene: Scene, picture: torch.Tensor, wanted: Wanted, tile: int = 512) -> tuple[float, torch.Tensor]:
    """The objective of a picture (colours × rows × columns), and its gradient, tile by tile.

    Each tile sees a margin around it: the field of a place of the layer, or half of it where it is large, but at most a
    quarter of the tile. With a whole field, objective and gradient are the whole picture's own; with half of one the
    gradient at the seams differs by a few hundredths. A class is asked of each tile for itself.
    """
    import torch

    network, size = scene.network, picture.shape[1:]
    layer = network.layer(wanted.layer) if wanted.layer else None
    found, total, count = torch.zeros_like(picture), 0.0, 0
    run = _reach(network, wanted.layer)
    with torch.enable_grad():
        for core, seen in _tiles(size, wanted, tile):
            fed = scene.fed(picture[:, *seen]).requires_grad_()
            (values,) = run(fed)
            each = _excited(values, wanted, layer)
            (slopes,) = torch.autograd.grad(each.sum(), fed)
            own = _own(each.detach(), core, seen, wanted, size)
            total, count = total + float(own.sum(dtype=torch.float64)), count + own.numel()
            inside = tuple(slice(c.start - s.start, c.stop - s.start) for c, s in zip(core, seen, strict=True))
            found[:, *core] = (slopes.reshape(len(picture), *(s.stop - s.start for s in seen)) * scene.span)[:, *inside]
            del values, each, slopes, fed
    return total / count, found.div_(count)


def objective_of(scene: Scene, picture: np.ndarray, wanted: Wanted, tile: int = 512) -> float:
    """The objective alone, of a picture as colours × rows × columns."""
    import torch

    layer = scene.network.layer(wanted.layer) if wanted.layer else None
    total, count, whole = 0.0, 0, torch.as_tensor(picture)
    for core, seen in _tiles(whole.shape[1:], wanted, tile):
        each = _excited(_values(scene.network, scene.fed(whole[:, *seen]), wanted.layer), wanted, layer)
        own = _own(each, core, seen, wanted, whole.shape[1:])
        total, count = total + float(own.sum(dtype=torch.float64)), count + own.numel()
    return total / count


def _tiles(size: Sequence[int], wanted: Wanted, tile: int) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """The parts of a picture, and what is shown for each: it begins at a whole stride, so that places fall as they do."""
    spans = []
    for length, stride in zip(size, wanted.stride, strict=True):
        if length <= tile or not stride:
            spans.append([(slice(0, length), slice(0, length))])
            continue
        parts = math.ceil(length / tile)
        side = math.ceil(length / parts / stride) * stride
        margin = math.ceil(min(wanted.margin, max(64, wanted.margin / 2), tile // 4) / stride) * stride
        starts = range(0, length, side)
        spans.append(
            [
                (slice(a, min(a + side, length)), slice(max(0, a - margin), min(a + side + margin, length)))
                for a in starts
            ]
        )
    for rows, seen_rows in spans[0]:
        for columns, seen_columns in spans[1]:
            yield (rows, columns), (seen_rows, seen_columns)


# ── The climb ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def dreaming_steps(
    network: Network, image: Any, *, layer: str = "", unit: int | None = None, target: str | int | None = "",
    guide: Any = None, start: Mapping[str, Any] | None = None, **settings: Any,
) -> Generator[Frame, None, None]:  # fmt: skip
    """Dream a layer (or a unit, a class, a guide) into a photo, yielding a Frame after every step; stop by leaving.

    `settings` are the fields of Settings. `start` is what an earlier `Frame.capture()` gave: the dream goes on from
    there, to the bit as it would have with the same settings, or by others. The last frame is the finished dream.

    Raises as `scene_of` and `wanted_of` do, and UsageError for a photo too small for the network.

    >>> import torch, neuralmine as nm
    >>> net = nm.load(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()), shape=(3, 12, 12))
    >>> frames = dreaming_steps(net, np.full((30, 40, 3), 0.5), layer="0", octaves=2, steps=2)
    >>> [(frame.octave, frame.step, frame.picture.shape) for frame in frames]
    [(0, 0, (21, 29, 3)), (0, 1, (21, 29, 3)), (1, 0, (30, 40, 3)), (1, 1, (30, 40, 3)), (1, 1, (30, 40, 3))]
    """
    chosen = Settings(**_known(settings))
    asked = layer or ("" if target not in (None, "") else ladder(network)[-1].name)
    if asked:
        network.layer(asked)
    scene = scene_of(network, image, [asked])
    return climb(scene, wanted_of(scene, layer=layer, unit=unit, target=target, guide=guide), chosen, start)


def _known(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in settings:
        if name not in Settings.__dataclass_fields__:
            raise UnknownName("setting", name, Settings.__dataclass_fields__)
    return settings


def climb(
    scene: Scene, wanted: Wanted, settings: Settings, start: Mapping[str, Any] | None = None
) -> Generator[Frame, None, None]:
    """The steps of `dreaming_steps`, for a scene and an objective that are made already."""
    import torch

    sizes, _ = octave_sizes(scene, wanted, settings)
    photo = torch.as_tensor(scene.photo)
    first, done = (start["octave"], start["step"]) if start else (0, 0)
    base = resized(photo, sizes[min(first, len(sizes) - 1)])
    picture = (
        resized(torch.as_tensor(start["picture"]), (base.shape[1], base.shape[2])).clone() if start else base.clone()
    )
    areas = np.cumsum([0, *(high * wide for high, wide in sizes)]) / sum(high * wide for high, wide in sizes)

    def share(octave: int, step: int) -> float:
        return float(areas[octave] + (areas[octave + 1] - areas[octave]) * (step + 1) / settings.steps)

    value, octave, step, trouble, good = math.nan, first, done - 1, (), picture
    for octave in range(min(first, len(sizes) - 1), len(sizes)):
        if (base.shape[1], base.shape[2]) != sizes[octave]:
            detail = resized(picture.sub_(base), sizes[octave])
            base = resized(photo, sizes[octave])
            picture = detail.add_(base).clamp_(0, 1)
            del detail
        good = picture.clone()
        for step in range(done, settings.steps):
            value, moved = _step(scene, picture, good, wanted, settings, octave, step)
            trouble = _trouble(value, moved, wanted)
            if any(found.stops for found in trouble):
                picture.copy_(good)  # the last that the network could answer
            yield Frame(octave, len(sizes), step, settings.steps, value, picture, share(octave, step), trouble)
            if any(found.stops for found in trouble):
                break
        done = 0
        if any(found.stops for found in trouble):
            break
    if (base.shape[1], base.shape[2]) != (photo.shape[1], photo.shape[2]):
        picture = resized(picture.sub_(base), (photo.shape[1], photo.shape[2])).add_(photo).clamp_(0, 1)
    del base, good
    reach = distance(photo.numpy(), picture.numpy())
    factor = at_budget(photo.numpy(), picture.numpy(), settings.budget) if settings.budget else 1.0
    yield Frame(octave, len(sizes), step, settings.steps, value, picture, 1.0, trouble, True, factor, reach)


def _step(
    scene: Scene, picture: torch.Tensor, good: torch.Tensor, wanted: Wanted, settings: Settings, octave: int, step: int
) -> tuple[float, float]:
    """One step, in place: the objective before it, and the gradient's mean size (the picture stays if it is 0 or NaN).

    `good` becomes the picture before the step, if the network could answer it.
    """
    import torch

    # A generator of its own for every step: going on from the middle needs no memory of what was drawn before.
    most = min(settings.jitter, min(picture.shape[1:]) // 4) if scene.free else min(settings.jitter, 1)
    down, right = (int(n) for n in np.random.default_rng([settings.seed, octave, step]).integers(-most, most + 1, 2))
    value, slopes = gradient_of(scene, torch.roll(picture, (down, right), (1, 2)), wanted, settings.tile)
    if settings.smooth:
        slopes = blurred(slopes, settings.smooth)
    size = float(torch.linalg.vector_norm(slopes, 1, dtype=torch.float64)) / slopes.numel()
    if size > 0 and math.isfinite(size) and math.isfinite(value):
        good.copy_(picture)
        # Rolled back part by part: a large photo leaves no room for one more copy.
        for here, there in _parts(picture.shape[1], down):
            for left, right_of in _parts(picture.shape[2], right):
                picture[:, here, left].add_(slopes[:, there, right_of], alpha=settings.strength / 255 / size)
        picture.clamp_(0, 1)
    return value, size if math.isfinite(value) else math.nan


def _parts(length: int, shift: int) -> list[tuple[slice, slice]]:
    """Where the parts of a row lie, and where they lie after a roll by `shift`."""
    shift %= length
    return [(slice(0, length - shift), slice(shift, length)), (slice(length - shift, length), slice(0, shift))]


def _trouble(value: float, size: float, wanted: Wanted) -> tuple[Trouble, ...]:
    if not (math.isfinite(size) and math.isfinite(value)):
        return (
            Trouble(
                "not a number",
                f"The objective or its gradient became NaN or infinite at {wanted.name}; the last good picture is kept.",
                "A value in the network grew beyond what a number can hold, or the network itself gives NaN.",
                "Choose another layer or a smaller strength, and check the network's weights.",
                stops=True,
            ),
        )
    if size == 0:
        return (
            Trouble(
                "no gradient",
                f"The gradient of {wanted.name} is 0 everywhere, so the picture did not move.",
                "It is off for this picture (a ReLU passes no gradient where it is off), or does not depend on it.",
                "Choose another unit, the layer before the ReLU, another layer, or another photo.",
                stops=False,
            ),
        )
    return ()


def octave_sizes(scene: Scene, wanted: Wanted, settings: Settings) -> tuple[list[tuple[int, int]], str]:
    """The sizes to dream at, the smallest first, and what to say when there are fewer than asked.

    Raises UsageError for a photo that is itself too small for the network.
    """
    rows, columns = scene.photo.shape[1:]
    if not scene.free:
        said = "" if settings.octaves == 1 else " It was dreamt in one size."
        return [(rows, columns)], said
    wide = [
        (max(1, round(rows / settings.scale**k)), max(1, round(columns / settings.scale**k)))
        for k in reversed(range(settings.octaves))
    ]
    # A photo beyond a tile is surely large enough, and need not be run whole to see it.
    sizes = [size for size in wide if min(size) > 256 or _runs(scene.network, wanted.layer, size)]
    if (rows, columns) not in sizes:
        raise UsageError(
            f"A photo of {columns} × {rows} pixels is too small for {wanted.name} of this network.",
            "Enlarge it, or choose an earlier layer.",
        )
    left = len(wide) - len(sizes)
    return sizes, f" {left} of {len(wide)} octaves were left out: the photo is too small for them." if left else ""


def dreamt(scene: Scene, wanted: Wanted, settings: Settings, frames: Iterator[Frame] | None = None) -> Dream:
    """The dream climbed to its end."""
    objective, seen, frame = [], [], None
    for frame in frames if frames is not None else climb(scene, wanted, settings):
        if not frame.last and math.isfinite(frame.objective):
            objective.append(frame.objective)
        if not frame.last:
            seen += frame.trouble
    assert frame is not None
    return finished(scene, wanted, settings, frame, np.array(objective), seen)


def finished(
    scene: Scene, wanted: Wanted, settings: Settings, frame: Frame, objective: np.ndarray, seen: Sequence[Trouble] = ()
) -> Dream:
    """A Dream from the last of its frames: with the objective in full size before and after, and what went wrong."""
    picture = frame.tensor.numpy()
    before, after = (objective_of(scene, one, wanted, settings.tile) for one in (scene.photo, picture))
    note = scene.note + octave_sizes(scene, wanted, settings)[1]
    for name in dict.fromkeys(found.name for found in seen):
        worst = [found for found in seen if found.name == name]
        often = f" ({len(worst)} steps)" if name == "no gradient" else ""
        note += f" {worst[0].what}{often} {worst[0].why} {worst[0].advice}"
    return Dream(scene, wanted, picture, objective, before, after, frame.factor, frame.reach, note.strip())


def zooming_steps(
    scene: Scene, wanted: Wanted, settings: Settings, *, frames: int = 100, factor: float = 1.02, steps: int = 3
) -> Generator[np.ndarray, None, None]:
    """A journey into a dream: every picture (rows × columns × 3, 8 bits) is the middle of the one before it, dreamt on.

    The first is the whole dream; of each, the middle is enlarged by `factor` and climbed for `steps` in its one size.
    Raises UsageError for fewer than 1 frame, or a factor that is not from 1 to 2.

    >>> import torch, neuralmine as nm
    >>> net = nm.load(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()), shape=(3, 12, 12))
    >>> scene = scene_of(net, np.full((30, 40, 3), 0.5))
    >>> walk = zooming_steps(scene, wanted_of(scene, layer="0"), Settings(octaves=1, steps=2), frames=3)
    >>> [picture.shape for picture in walk]
    [(30, 40, 3), (30, 40, 3), (30, 40, 3)]
    """
    if frames < 1 or not 1 <= factor <= 2:
        raise UsageError(
            f"{frames} pictures, each {factor} times larger.", "Give 1 picture or more, a factor of 1 to 2."
        )
    picture = dreamt(scene, wanted, settings).picture
    yield eight_bits(picture)
    for k in range(1, frames):
        onward = replace(settings, octaves=1, steps=steps, budget=0.0, seed=(settings.seed + k) % 2**31)
        picture = dreamt(replace(scene, photo=enlarged(picture, factor)), wanted, onward).picture
        yield eight_bits(picture)


# ── Arithmetic of pictures ────────────────────────────────────────────────────────────────────────────────────────────


def shown(picture: np.ndarray) -> np.ndarray:
    """Colours × rows × columns as rows × columns × 3; a copy."""
    return np.ascontiguousarray(np.moveaxis(np.broadcast_to(picture, (3, *picture.shape[1:])), 0, -1))


def eight_bits(picture: np.ndarray) -> np.ndarray:
    """Colours × rows × columns, 0..1, as rows × columns × 3 of 8 bits: what a file holds."""
    bands = [np.rint(shown(band) * np.float32(255)).astype(np.uint8) for (band,) in _bands(picture)]
    return np.concatenate(bands)


def resized(picture: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Bilinear; antialiased where it gets smaller."""
    import torch

    if tuple(picture.shape[1:]) == tuple(size):
        return picture
    smaller = size[0] < picture.shape[1] or size[1] < picture.shape[2]
    return torch.nn.functional.interpolate(
        picture[None], size=size, mode="bilinear", align_corners=False, antialias=smaller
    )[0]


def enlarged(picture: np.ndarray, factor: float) -> np.ndarray:
    """The middle of a picture (colours × rows × columns), so much larger, in the picture's own size; bicubic."""
    import torch

    where = torch.tensor([[[1 / factor, 0, 0], [0, 1 / factor, 0]]], dtype=torch.float32)
    grid = torch.nn.functional.affine_grid(where, [1, *picture.shape], align_corners=False)
    found = torch.nn.functional.grid_sample(
        torch.as_tensor(picture)[None], grid, mode="bicubic", padding_mode="reflection", align_corners=False
    )
    return found[0].clamp_(0, 1).numpy()


def blurred(picture: torch.Tensor, sd: float) -> torch.Tensor:
    """Gaussian, cut at three sd; the edge repeats."""
    import torch

    reach = max(1, math.ceil(3 * sd))
    taps = torch.exp(-torch.arange(-reach, reach + 1, dtype=picture.dtype).square() / (2 * sd * sd))
    taps /= taps.sum()
    functional = torch.nn.functional
    wide = functional.pad(picture[:, None], (reach,) * 4, mode="replicate")
    wide = functional.conv2d(functional.conv2d(wide, taps.view(1, 1, -1, 1)), taps.view(1, 1, 1, -1))
    return wide[:, 0]


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """L2 per value: the root of the mean squared difference."""
    total = sum(float(np.square(a.astype(np.float64) - b).sum()) for a, b in _bands(one, other))
    return math.sqrt(total / one.size)


def _bands(*pictures: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Matching parts, a few rows at a time: whole photos in double precision would fill the memory."""
    rows = max(1, 500_000 // max(1, pictures[0].shape[-1]))
    for start in range(0, pictures[0].shape[1], rows):
        yield tuple(picture[:, start : start + rows] for picture in pictures)


def changed(photo: np.ndarray, picture: np.ndarray, factor: float) -> np.ndarray:
    """The photo with so much of the picture's change, cut to 0..1."""
    if factor == 1:
        return picture
    return np.clip(photo + np.float32(factor) * (picture - photo), 0, 1)


def shuffled_change(photo: np.ndarray, picture: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The photo with the picture's change in a random order of its pixels (colours stay together), at the same L2.

    The cut to 0..1 takes another part of it in every order; what is left is brought back to the same L2 per value.
    """
    order = generator.permutation(photo[0].size)
    change = (picture - photo).reshape(len(photo), -1)[:, order].reshape(photo.shape)
    mixed = np.clip(photo + change, 0, 1)
    del change
    if distance(photo, mixed) > 0:
        at_budget(photo, mixed, distance(photo, picture))
    return mixed


def at_budget(photo: np.ndarray, picture: np.ndarray, budget: float) -> float:
    """Bring the change to that L2 per value, in place, by one factor; gives the factor (0 when there is no change).

    The cut to 0..1 is reckoned with. If even a hundredfold change does not reach the budget, it is left at that.
    """

    def at(factor: float) -> float:
        bands = _bands(photo, picture)
        return math.sqrt(
            sum(float(np.square(changed(a, b, factor) - a).sum(dtype=np.float64)) for a, b in bands) / photo.size
        )

    now = at(1.0)
    if now == 0:
        return 0.0
    low, high = 0.0, 1.0
    while at(high) < budget and high < 100:
        low, high = high, high * 2
    factor = budget / now if now > budget else high
    for _ in range(40):
        reached = at(factor)
        if abs(reached - budget) <= 1e-6 * budget:
            break
        low, high = (factor, high) if reached < budget else (low, factor)
        # By proportion where that stays inside, else by halves.
        guess = factor * budget / reached if reached else 0.0
        factor = guess if low < guess < high else (low + high) / 2
    for a, b in _bands(photo, picture):
        b[:] = changed(a, b, factor)
    return factor


# ── The ladder ────────────────────────────────────────────────────────────────────────────────────────────────────────


def ladder(network: Network, layers: str | Sequence[str] = "all") -> list[Layer]:
    """The layers of a series in depth order: those named, or one for each stage of the network.

    A stage is a module as deep in the tree of names as gives at least six of them; layers that only squash, rescale or
    pass on are none, nor are the maps of the classes. At most sixteen, evenly chosen.
    Raises UnknownName for a layer that does not exist, UsageError when none is named.

    >>> import neuralmine as nm
    >>> [layer.name for layer in ladder(nm.load("digits"))]
    ['hidden1', 'output']
    """
    names = [n.strip() for n in layers.split(",")] if isinstance(layers, str) else list(layers)
    names = [name for name in names if name]
    if not names:
        raise UsageError("No layer is named.", 'Give names with commas between them, or "all".')
    if names != ["all"]:
        chosen = {network.layer(name).name for name in names}
        return [layer for layer in network.layers if layer.name in chosen]
    for fits in (_is_maps, lambda layer: layer.dims == "b t d", lambda layer: layer.dims == "b d"):
        found = _stages(network, [layer for layer in network.layers if fits(layer) and "#" not in layer.name])
        if found:
            break
    else:
        found = list(network.layers)
    if len(found) > RUNGS:
        found = [found[round(i)] for i in np.linspace(0, len(found) - 1, RUNGS)]
    return found


def _stages(network: Network, layers: Sequence[Layer]) -> list[Layer]:
    best: list[Layer] = []
    for depth in range(1, 2 + max((layer.name.count(".") for layer in layers), default=0)):
        parents = {".".join(layer.name.split(".")[:k]) for layer in network.layers for k in range(1, depth)}
        level = [layer for layer in layers if layer.name.count(".") < depth and layer.name not in parents]
        level = [x for x in level if not any(word in x.kind for word in _PASSING) and not _of_classes(network, x)]
        if len(level) > len(best):
            best = level
        if len(best) >= 6:
            break
    return best


def _of_classes(network: Network, layer: Layer) -> bool:
    return layer.dims == "b c h w" and layer.shape[1] == len(network.labels)


def cost(network: Network, layer: str) -> float:
    """Multiplications of a pass as far as the layer, roughly: for saying how long it will take."""
    total = 0.0
    for one in network.layers:
        places = one.shape[2] * one.shape[3] if one.dims == "b c h w" else 1
        total += one.parameters * places + math.prod(one.shape)
        if one.name == layer:
            break
    return total


# ── A series ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, eq=False)
class Rung:
    """How a series stands: a frame of the layer that is dreamt, or, when the layer is done, its picture of 8 bits."""

    index: int
    layers: tuple[str, ...]
    frame: Frame | None = None
    picture: np.ndarray | None = None  # rows × columns × 3
    about: Mapping[str, Any] = field(default_factory=dict)  # settings, objective before and after, factor, note
    read: bool = False  # from the folder: it was dreamt before

    @property
    def layer(self) -> str:
        return self.layers[self.index]


def series_steps(
    network: Network, image: Any, *, layers: str | Sequence[str] = "all", keep: str | Path = "", **settings: Any
) -> Generator[Rung, None, None]:
    """One dream a layer in depth order; each begins at the photo. Yields a Rung a step, and one with each picture.

    `keep` is a folder: a finished layer is written there at once (NN-LAYER.png, with all that made it in its text), and
    read back when the very same is asked for again. Raises as `dreaming_steps`, and StoreError for the folder.
    """
    chosen = Settings(**_known(settings))
    rungs = ladder(network, layers)
    names = tuple(layer.name for layer in rungs)
    scene = scene_of(network, image, names)
    same = {
        "network": network.name, "weights": weights_hash(network), "photo": array_hash(scene.photo), **asdict(chosen)
    }  # fmt: skip
    for index, name in enumerate(names):
        key = hashlib.sha256(json.dumps({**same, "layer": name}, sort_keys=True).encode()).hexdigest()[:16]
        path = Path(keep) / f"{index + 1:02d}-{name.replace('/', '_')}.png" if keep else None
        kept = _kept(path, key)
        if kept:
            yield Rung(index, names, picture=kept[0], about=kept[1], read=True)
            continue
        wanted, objective, seen, frame = wanted_of(scene, layer=name), [], [], None
        for frame in climb(scene, wanted, chosen):
            if not frame.last:
                seen += frame.trouble
                if math.isfinite(frame.objective):
                    objective.append(frame.objective)
                yield Rung(index, names, frame)
        assert frame is not None
        one = finished(scene, wanted, chosen, frame, np.array(objective), seen)
        picture = eight_bits(one.picture)
        about = {
            **same, "layer": name, "key": key, "objective": [one.before, one.after], "factor": one.factor,
            "change": distance(scene.photo, one.picture), "reach": one.reach, "note": one.note,
        }  # fmt: skip
        del one, frame
        if path is not None:
            write_picture(picture, path, about)
        yield Rung(index, names, picture=picture, about=about)


def _kept(path: Path | None, key: str) -> tuple[np.ndarray, Mapping[str, Any]] | None:
    if path is None or not path.is_file():
        return None
    try:
        about = notes_of(path)
        return (np.array(opened(path)), about) if about.get("key") == key else None
    except (NeuralmineError, OSError, ValueError):
        return None  # broken, or another's: dreamt again
