"""A photo before a network, and what is asked of it: which layer, unit, class or guide."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..attribution import class_index, scores_of
from ..errors import DataError, NetworkError, NeuralmineError, UsageError
from ..fields import field_of
from ..pictures import fitted, opened
from ..tracing import trace
from ..types import Layer, Network
from .changes import resized
from .rungs import is_maps, ladder

if TYPE_CHECKING:
    import torch


LONGEST = 4096  # pixels; a photo's longer side beyond this is reduced, so that memory stays bounded
PLACES = 256  # of a guide's maps, at most, that the picture's places choose among


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

    from ..pictures import SHORTER

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
        runs_at(network, name, (shape[1] + 21, shape[2] + 37)) for name in dict.fromkeys(layers)
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


def runs_at(network: Network, layer: str, size: tuple[int, int]) -> bool:
    """Whether the network gets as far as the layer on a picture of that size, and answers in the same form."""
    import torch

    try:
        values = answers_of(network, torch.zeros((1, network.shape[0], *size)), layer)
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
        axis = axis_of(chosen)
        if not 0 <= unit < chosen.shape[axis]:
            raise UsageError(
                f"{chosen.name} has units 0 to {chosen.shape[axis] - 1}, not {unit}.", "Choose one of those."
            )
    named = chosen.name if unit is None else f"{chosen.name}, unit {unit}"
    wanted = _tiled(scene, Wanted(chosen.name, unit, name=named))
    return wanted if guide is None else replace(wanted, guide=_guide(scene, chosen, guide), name=f"{named}, guided")


def axis_of(layer: Layer) -> int:
    """Which axis of the layer counts its units."""
    dims = layer.dims.split()
    found = next((dims.index(letter) for letter in ("c", "d") if letter in dims), None)
    if found is None:
        raise UsageError(f"{layer.name} has dims {layer.dims!r}, so no units.", "Leave the unit out.")
    return found


def _tiled(scene: Scene, wanted: Wanted) -> Wanted:
    """With the layer's stride and how far its places see, where tiles can be laid."""
    if not scene.free:
        return wanted
    layer = wanted.layer or next((x.name for x in reversed(scene.network.layers) if is_maps(x)), "")
    if not layer or not is_maps(scene.network.layer(layer)):
        return wanted
    seen = field_of(scene.network, layer)
    stride = (0, 0) if seen.whole else seen.stride
    if min(stride) < 1:
        # What a place sees is not known: tiles are laid all the same, for memory, and their seams are blurred by jitter.
        return replace(wanted, stride=(1, 1), margin=max(scene.network.shape[1:]))
    return replace(
        wanted, stride=(int(stride[0]), int(stride[1])), margin=int(max(seen.size)), placed=bool(wanted.layer)
    )


def _guide(scene: Scene, layer: Layer, guide: Any) -> torch.Tensor:
    if not isinstance(guide, (str, Path, np.ndarray)):
        raise UsageError(f"A guide cannot be {type(guide).__name__}.", "Give a picture's path, or an array.")
    if not is_maps(layer):
        raise UsageError(f"A guide needs a layer with maps; {layer.name} has dims {layer.dims!r}.", "Choose another.")
    other = scene_of(scene.network, guide, [layer.name])
    import torch

    picture = torch.as_tensor(other.photo)
    if scene.free:
        scale = max(scene.network.shape[1:]) / max(picture.shape[1:])
        picture = resized(picture, (max(32, round(picture.shape[1] * scale)), max(32, round(picture.shape[2] * scale))))
    values = answers_of(scene.network, other.fed(picture), layer.name)[0].flatten(1).T
    return values[:: max(1, math.ceil(len(values) / PLACES))].contiguous()


def answers_of(network: Network, fed: torch.Tensor, layer: str) -> torch.Tensor:
    """What the layer puts out for an encoded batch; without a layer the scores."""
    if layer:
        return trace(network, fed, layers=[layer])[layer].value
    return scores_of(trace(network, fed, layers=[], output=True).output)
