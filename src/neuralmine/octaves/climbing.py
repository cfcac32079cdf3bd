"""The climb: sizes from small to large, steps in each, and the dream at its end; and the way on into it."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UnknownName, UsageError
from ..types import Network, Trouble
from .changes import at_budget, blurred, distance, eight_bits, enlarged, resized, shown
from .gradients import gradient_of, objective_of
from .rungs import ladder
from .scenes import Scene, Wanted, runs_at, scene_of, wanted_of

if TYPE_CHECKING:
    import torch


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
    chosen = Settings(**known(settings))
    asked = layer or ("" if target not in (None, "") else ladder(network)[-1].name)
    if asked:
        network.layer(asked)
    scene = scene_of(network, image, [asked])
    return climb(scene, wanted_of(scene, layer=layer, unit=unit, target=target, guide=guide), chosen, start)


def known(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings as they are. Raises UnknownName for one that does not exist."""
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
    sizes = [size for size in wide if min(size) > 256 or runs_at(scene.network, wanted.layer, size)]
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
