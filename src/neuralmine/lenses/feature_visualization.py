from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from .. import dreaming, images
from ..attribution import class_index, last_spatial
from ..errors import NetworkError, UnknownName, UsageError
from ..lens import lens
from ..progress import over
from ..tracing import trace
from ..types import LAST, Between, Check, Finding, LayerName, Network
from ..views import Lines, Picture

if TYPE_CHECKING:
    from torch import Tensor

AT_ONCE = 2**17  # pixels in one pass of the network: with more, its maps no longer fit into a processor's cache
WAKING, STRONGER = 12, 1.5  # steps in which the noise of a unit without gradient is made stronger, and how much a step
SHUFFLES, NOISES = 3, 5  # of the nulls
RATES = {"fourier": 0.05, "pixels": 0.05, "maco": 1.0}
Aim = Literal["channel", "neuron", "class", "direction"]
Method = Literal["fourier", "maco", "pixels"]


@lens(on="b c h w|b d|b t d", reads="pixels")
def feature_visualization(
    network: Network,
    *,
    layer: LayerName = LAST,
    units: str = "0",
    objective: Aim = "channel",
    method: Method = "fourier",
    steps: Annotated[int, Between(1, 10000)] = 128,
    diversity: Annotated[int, Between(1, 16)] = 1,
    negative: bool = False,
    lr: Annotated[float, Between(0, 100)] = 0.0,
    size: Annotated[int, Between(0, 4096)] = 0,
    transforms: bool = True,
    seed: int = 0,
) -> Finding:
    """Pictures made from noise to excite a unit, a channel, a direction or a class: what it has learned to look for.

    All units are climbed in one batch, and each comes out as it would alone. Numbers, for n pictures (units, and for
    each `diversity` of them): "images" (n × rows × columns × 3, 0 to 1), "objective" (steps + 1 × n: of the picture as
    it was moved about at that step), "units" (n: channel or class; of directions their order), "start" and "end" (n:
    the objective of the first and the last picture, not moved), "shuffled" (n × 3) and "noise" (n × 5), the nulls: the
    last picture with its pixels shuffled, and with the phases of its spectrum replaced by random ones. With MACO also
    "transparency" (n × rows × columns: how much each place mattered on the way).

    Options:
        layer: whose units; for classes it is not needed.
        units: channel numbers with commas between them, or classes by name or number; directions as sums of channels,
            such as 3+7 or 2*3-7.
        objective: channel (mean over all places), neuron (the centre place), class (the network's output), or
            direction (dot product, mean over all places).
        method: fourier (a spectrum with the frequencies of photos), maco (phases alone; six windows of the picture a
            step), or pixels (each for itself: mostly noise, for comparison).
        steps: how often the picture is changed.
        diversity: so many pictures for each unit, which are made to differ (cosine of their Gram matrices).
        negative: go down instead: what turns the unit off most.
        lr: how far a step goes; 0 for 0.05, and 1 with MACO.
        size: rows and columns of the picture; 0 for what the network takes.
        transforms: pad, shift, scale and turn the picture a little at each step.
        seed: of the start and of all moves.

    Raises UnknownName for a unit or a class that does not exist, UsageError for a layer from which no gradient leads
    back to the picture.
    Source: Olah, Mordvintsev and Schubert (2017), "Feature Visualization"; Fel and others (2023), "Unlocking Feature
    Visualization for Deeper Networks with MAgnitude Constrained Optimization".

    >>> import torch, neuralmine as nm
    >>> net = nm.load(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()), shape=(3, 16, 16))
    >>> finding = nm.look("feature_visualization", net, layer="0", units="1,2", steps=2)
    >>> finding.numbers["images"].shape, finding.numbers["objective"].shape
    ((2, 16, 16, 3), (3, 2))
    """
    walk = visualize(
        network, layer=layer, units=units, objective=objective, method=method, steps=steps, diversity=diversity,
        negative=negative, lr=lr, size=size, transforms=transforms, seed=seed,
    )  # fmt: skip
    while True:
        try:
            next(walk)
        except StopIteration as stop:
            made: Made = stop.value
            break
    plain = _Plain(network, made.goal)
    nulls = _nulls(made.images, seed)
    numbers = {
        "images": made.images,
        "objective": made.objective,
        "units": np.repeat(made.goal.units, diversity),
        "start": plain(made.first),
        "end": plain(made.images),
        "shuffled": np.stack([plain(some) for some in nulls[:SHUFFLES]], 1),
        "noise": np.stack([plain(some) for some in nulls[SHUFFLES:]], 1),
    }
    if made.transparency is not None:
        numbers["transparency"] = made.transparency
    names = made.goal.names(diversity)
    title = "the network's output" if objective == "class" else f"{layer}, {objective}"
    curves = {name: made.objective[:, i] for i, name in enumerate(names[:8])}
    return Finding(
        numbers,
        (
            Picture(f"{title}: what {'turns it off' if negative else 'excites it'} most", made.images, names),
            Lines(f"{title}: the climb", np.arange(len(made.objective)), curves, "step", "objective"),
        ),
        tuple(_checks(numbers, negative)),
        _said(title, names, numbers, made, steps, negative),
        provenance={"names": list(names), "stopped": made.stopped, "dead": made.dead.tolist()},
    )


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """What a climb came to: n pictures, the first ones, the objective by step, and what went wrong on the way.

    `stopped` is the step at which a value was no number (−1 for none), `dead` says of each picture whether no step
    had a gradient.
    """

    goal: Goal
    images: np.ndarray
    first: np.ndarray
    objective: np.ndarray
    stopped: int
    dead: np.ndarray
    transparency: np.ndarray | None


@dataclass(frozen=True, slots=True, eq=False)
class Goal:
    """What is climbed: `values` takes what was reached, and gives a number for each picture of a batch.

    `layers` are those to be reached, the first for the value, the last for the diversity; `vectors` is units ×
    channels for directions.
    """

    layers: tuple[str, ...]
    objective: Aim
    units: np.ndarray
    labels: tuple[str, ...]
    vectors: np.ndarray | None = None

    def names(self, copies: int) -> tuple[str, ...]:
        return tuple(f"{label} ({k + 1})" if copies > 1 else label for label in self.labels for k in range(copies))

    def values(self, reached: Tensor, which: list[int]) -> Tensor:
        """The objective of each picture; `which` has the unit of each, by its place in `units`."""
        if self.vectors is not None:
            return dreaming.direction(self.vectors[which])(reached)
        units = self.units[which].tolist()
        return (dreaming.neuron if self.objective == "neuron" else dreaming.channel)(units)(reached)


def visualize(
    network: Network,
    *,
    layer: str,
    units: str = "0",
    objective: Aim = "channel",
    method: Method = "fourier",
    steps: int = 128,
    diversity: int = 1,
    negative: bool = False,
    lr: float = 0.0,
    size: int = 0,
    transforms: bool = True,
    seed: int = 0,
) -> Generator[tuple[int, int, np.ndarray], None, Made]:
    """The same step by step, for a page that shows it: yields (step, steps, the pictures before it, n × rows × columns × 3).

    Between two steps the network is as it was, so others may look at it; whoever stops asking cancels. Returns what
    was made.

    >>> import neuralmine as nm
    >>> net = nm.load("digits")
    >>> [(step, steps, pictures.shape) for step, steps, pictures in visualize(net, layer="hidden1", steps=2)]
    [(0, 2, (1, 8, 8, 3)), (1, 2, (1, 8, 8, 3))]
    """
    import torch

    goal = _goal(network, layer, units, objective, diversity)
    climb = _Climb(network, goal, method, size, diversity, negative, transforms, seed)
    climber = (torch.optim.NAdam if method == "maco" else torch.optim.Adam)([climb.numbers], lr=lr or RATES[method])
    objectives, stopped = [], -1
    first = good = transparency = None
    dead = torch.ones(climb.count, dtype=torch.bool)
    with climb.workers() as pool:
        for step in over(range(steps + 1), "step"):
            pictures, values, slope, pulls = climb.step(pool, last=step == steps)
            if not bool(torch.isfinite(values).all() and torch.isfinite(pictures).all()):
                stopped = step
                break
            good = pictures
            first = pictures if first is None else first
            objectives.append(values.cpu().numpy().astype(float))
            if slope is None or not bool(torch.isfinite(slope).all()):
                stopped = step if step < steps else -1
                break
            if pulls is not None:
                transparency = pulls if transparency is None else transparency + pulls
            dead &= ~slope.flatten(1).ne(0).any(1).cpu()
            yield step, steps, _shown(pictures)
            climb.numbers.grad = slope
            climber.step()
            if step < WAKING and dead.any():
                # Noise this faint leaves the unit off: a stronger one may not.
                with torch.no_grad():
                    climb.numbers[dead] *= STRONGER
    if good is None or first is None:
        raise NetworkError(
            f"What {goal.layers[0] or 'the network'} puts out for the very first picture is not a number.",
            "Look at its weights with the lens 'weights', or choose an earlier layer.",
        )
    if method == "maco" and transparency is None:
        transparency = torch.zeros(climb.count, *climb.shape[1:])
    pulled = None if transparency is None else transparency.cpu().numpy().astype(np.float32)
    return Made(goal, _shown(good), _shown(first), np.stack(objectives), stopped, dead.numpy(), pulled)


class _Climb:
    """The numbers the pictures are made from, and one step: pictures, moves, network, objective, gradient."""

    def __init__(
        self, network: Network, goal: Goal, method: Method, size: int, copies: int, negative: bool, moves: bool, seed: int
    ) -> None:  # fmt: skip
        import torch

        self.goal, self.method, self.copies, self.negative, self.moves = goal, method, copies, negative, moves
        colours, *wanted = images.size_of(network)
        self.size = wanted[0], wanted[1]  # what the network takes
        self.shape = colours, size or wanted[0], size or wanted[1]  # of a picture
        self.count = len(goal.units) * copies
        self.picture, start = _made_by(method, self.shape)
        with torch.inference_mode(False):
            # Every unit starts from the same noise, so that it comes out the same in any company.
            noise = start(copies, self.shape, torch.Generator().manual_seed(seed))
            self.numbers = torch.cat([noise] * len(goal.units)).requires_grad_()
        self.draws = torch.Generator().manual_seed(seed)
        self.encode, self.reach = images.encoding(network), dreaming.reach(network, *goal.layers)
        self.fixed = not _takes_any_size(network, self.encode, self.reach)
        pixels = images.CROPS * wanted[0] * wanted[1] if method == "maco" else self.shape[1] * self.shape[2]
        width = max(1, AT_ONCE // (copies * pixels)) * copies
        self.parts = [range(i, min(i + width, self.count)) for i in range(0, self.count, width)]

    @contextmanager
    def workers(self) -> Iterator[ThreadPoolExecutor | None]:
        """Threads for the parts of the batch, one core each: better than all cores for one part after another."""
        import torch

        count = min(torch.get_num_threads(), len(self.parts))
        if count < 2:
            yield None
            return
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool

    def step(self, pool: ThreadPoolExecutor | None, last: bool) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Pictures, objectives, the gradient at the numbers, and with MACO its size at each place of the pictures."""
        import torch

        work = partial(self._part, state=self.draws.get_state(), last=last)
        if pool is None:
            found = [work(part) for part in self.parts]
        else:
            threads = torch.get_num_threads()
            with self.reach.open():
                found = list(pool.map(work, self.parts))
            torch.set_num_threads(threads)  # a worker's own number is also that of threads to come
        self.draws.set_state(found[0][0].get_state())
        pictures, values, slopes, pulls = list(zip(*found, strict=True))[1:]
        return (
            torch.cat(pictures),
            torch.cat(values),
            None if last else torch.cat(slopes),
            None if last or self.method != "maco" else torch.cat(pulls),
        )

    def _part(self, part: range, state: Tensor, last: bool) -> tuple[Any, ...]:
        """The same for a part of the batch, moved as all others are; first the generator that drew the moves."""
        import torch

        draws = torch.Generator()
        draws.set_state(state)
        with torch.inference_mode(False), torch.enable_grad():
            numbers = self.numbers[part.start : part.stop].detach().requires_grad_()
            pictures = self.picture(numbers)
            values, loss = self._looked(pictures, [i // self.copies for i in part], draws)
            slope = pull = None
            if not last:
                slope, *pulls = torch.autograd.grad(loss, (numbers, pictures)[: 1 + (self.method == "maco")])
                pull = pulls[0].abs().mean(1) if pulls else None
        return draws, pictures.detach(), values.detach(), slope, pull

    def _looked(self, pictures: Tensor, which: list[int], draws: Any) -> tuple[Tensor, Tensor]:
        """The objective of each picture, and the one number to go down."""
        reached = self.reach(self.encode(self._moved(pictures, draws)))
        each = len(reached[0]) // len(which)
        values = self.goal.values(reached[0], [i for i in which for _ in range(each)]).view(len(which), each).mean(1)
        loss = (values if self.negative else -values).sum()
        if self.copies > 1:
            likeness = _likeness(reached[-1], self.copies, each)
            # As strong as what is climbed, whatever the scale of the layer.
            loss = loss + (likeness * values.detach().abs().view(-1, self.copies).sum(1)).sum()
        return values, loss

    def _moved(self, pictures: Tensor, draws: Any) -> Tensor:
        """What the network is shown of the pictures: moved about, and of its own size where it must be."""
        if self.method == "maco" and self.moves:
            return images.cropped(pictures, self.size, draws)
        if self.moves:
            pictures = images.moved(pictures, images.drawn_moves(*self.shape[1:], draws))
        if self.fixed:
            return images.resized(images.centred(pictures, self.shape[1:]), self.size)
        small = any(have < want for have, want in zip(self.shape[1:], self.size, strict=True))
        return images.resized(pictures, self.size) if small else pictures


class _Plain:
    """The objective of finished pictures (n × rows × columns × 3), not moved about."""

    def __init__(self, network: Network, goal: Goal) -> None:
        self.goal, self.size = goal, images.size_of(network)
        self.encode, self.reach = images.encoding(network), dreaming.reach(network, goal.layers[0])

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        import torch

        colours, *size = self.size
        copies, found = len(pictures) // len(self.goal.units), []
        width = max(1, AT_ONCE // (pictures.shape[1] * pictures.shape[2]))
        for i in range(0, len(pictures), width):
            some = torch.as_tensor(np.moveaxis(pictures[i : i + width, ..., :colours], -1, 1))
            (reached,) = self.reach(self.encode(images.resized(some, (size[0], size[1]))))
            which = [k // copies for k in range(i, i + len(some))]
            found.append(self.goal.values(reached, which).cpu().numpy().astype(float))
        return np.concatenate(found)


def _goal(network: Network, layer: str, units: str, objective: Aim, copies: int) -> Goal:
    """What was asked for, checked."""
    asked = list(dict.fromkeys(part.strip() for part in str(units).split(",") if part.strip()))
    if not asked:
        raise UsageError("No unit was asked for: `units` is empty.", "Name at least one, such as units='0'.")
    if objective == "class":
        scores = trace(network, network.encode(np.zeros(network.shape)), layers=[], output=True).output
        found = [class_index(network, scores, name) for name in asked]
        count = scores.shape[1]
        labels = [network.labels[i] if len(network.labels) == count else str(i) for i in found]
        layers = ("", _diverse_at(network, layer)) if copies > 1 else ("",)
        return Goal(layers, objective, np.array(found), tuple(labels))
    shape = network.layer(layer).shape
    count = shape[-1] if len(shape) == 3 else shape[1]
    if objective == "direction":
        vectors = np.stack([_direction(layer, text, count) for text in asked])
        return Goal((layer,), objective, np.arange(len(asked)), tuple(asked), vectors)
    return Goal((layer,), objective, np.array([_unit(layer, text, count) for text in asked]), tuple(asked))


def _diverse_at(network: Network, layer: str) -> str:
    """Where pictures of a class are told apart: at maps, for the scores themselves are meant to be alike."""
    if layer and layer != LAST and network.layer(layer).dims == "b c h w":
        return layer
    try:
        return last_spatial(network)[0].name
    except NetworkError:
        return network.layers[0].name


def _unit(layer: str, text: str, count: int) -> int:
    if not text.isdigit() or int(text) >= count:
        raise UnknownName(f"unit of {layer}", text, map(str, range(count)))
    return int(text)


def _direction(layer: str, text: str, count: int) -> np.ndarray:
    """ "2*3-7" as a vector of channels."""
    term = r"([+-]?)\s*(?:(\d+(?:\.\d+)?)\s*\*\s*)?(\d+)\s*"
    if not re.fullmatch(f"(?:{term})(?:(?=[+-]){term})*", text):
        raise UsageError(f"{text!r} is no direction.", "Write a sum of channels, such as 3+7 or 2*3-0.5*7.")
    vector = np.zeros(count)
    for sign, factor, unit in re.findall(term, text):
        vector[_unit(layer, unit, count)] += (-1 if sign == "-" else 1) * float(factor or 1)
    return vector


def _made_by(method: Method, shape: tuple[int, int, int]) -> tuple[Callable[[Any], Any], Callable[..., Any]]:
    """How a picture is made from numbers, and the numbers at the start."""
    columns = shape[2]
    if method == "fourier":
        return partial(images.fourier_image, columns=columns), images.spectrum_start
    if method == "maco":
        return partial(images.maco_image, columns=columns), images.phase_start
    return images.pixel_image, images.pixels_start


def _takes_any_size(network: Network, encode: Callable[[Any], Any], reach: Callable[[Any], Any]) -> bool:
    """Whether the network gets to the layer with pictures a little larger than its own."""
    import torch

    colours, rows, columns = images.size_of(network)
    try:
        reach(encode(torch.full((1, colours, rows + 9, columns + 9), 0.5)))
    except (NetworkError, RuntimeError):
        return False
    return True


def _likeness(values: Tensor, copies: int, each: int) -> Tensor:
    """For each unit how alike its pictures are: mean over them of the sum of cosines of Gram matrices with the others."""
    from torch.nn import functional

    maps = dreaming.maps_of(values).flatten(2)
    grams = functional.normalize((maps @ maps.transpose(1, 2)).flatten(1), dim=1)
    # Of several windows of one picture, the mean stands for it.
    grams = grams.view(-1, copies, each, grams.shape[1]).mean(2)
    cosines = grams @ grams.transpose(1, 2)
    return (cosines.sum((1, 2)) - cosines.diagonal(dim1=1, dim2=2).sum(1)) / copies


def _shown(pictures: Any) -> np.ndarray:
    """n × rows × columns × 3; grey three times."""
    array = np.moveaxis(pictures.detach().cpu().numpy(), 1, -1)
    return np.array(np.broadcast_to(array, (*array.shape[:3], 3)), dtype=np.float32, order="C")


def _nulls(pictures: np.ndarray, seed: int) -> list[np.ndarray]:
    """The pictures with shuffled pixels, SHUFFLES times, and with random phases, NOISES times."""
    generator = np.random.default_rng(seed)
    rows, columns = pictures.shape[1:3]
    found = []
    for _ in range(SHUFFLES):
        order = generator.permutation(rows * columns)
        found.append(pictures.reshape(len(pictures), -1, 3)[:, order].reshape(pictures.shape))
    waves = np.fft.rfft2(pictures, axes=(1, 2))
    for _ in range(NOISES):
        # One phase for all colours, so that they go together as before; and the mean colour stays.
        phases = np.exp(1j * np.angle(np.fft.rfft2(generator.standard_normal((rows, columns)))))
        phases[0, 0] = 1
        noise = np.fft.irfft2(waves * phases[None, :, :, None], s=(rows, columns), axes=(1, 2))
        found.append(noise.clip(0, 1).astype(np.float32))
    return found


def _checks(numbers: dict[str, np.ndarray], negative: bool) -> list[Check]:
    sign = -1 if negative else 1
    end, start = numbers["end"], numbers["start"]
    found = []
    for name, null, meaning in (
        ("beats the start", start[:, None], "null: the noise it started from"),
        ("beats its own pixels, shuffled", numbers["shuffled"], f"null: {SHUFFLES} shuffles, their mean and range"),
        ("beats noise of its own spectrum", numbers["noise"], f"null: {NOISES} with random phases, their mean and range"),
    ):  # fmt: skip
        passed = bool((sign * end[:, None] > sign * null).all())
        found.append(
            Check(name, float(end.mean()), float(null.mean()), (float(null.min()), float(null.max())), passed,
                  f"Mean objective of the pictures; {meaning}. Holds if it does for every picture.")
        )  # fmt: skip
    return found


def _said(
    title: str, names: tuple[str, ...], numbers: dict[str, np.ndarray], made: Made, steps: int, negative: bool
) -> str:
    sign = -1 if negative else 1
    start, end = numbers["start"], numbers["end"]
    null = (sign * np.concatenate([numbers["shuffled"], numbers["noise"]], 1)).max(1) * sign
    shown = "; ".join(
        f"{name} from {a:.3g} to {b:.3g} (best null {c:.3g})"
        for name, a, b, c in list(zip(names, start, end, null, strict=True))[:4]
    )
    said = [f"{title}: {shown}{f'; and {len(names) - 4} more' if len(names) > 4 else ''}."]
    if made.stopped >= 0:
        said.append(
            f"It stopped at step {made.stopped}, where a value was not a number; the pictures are the last good ones. "
            "Try a smaller lr."
        )
    if made.dead.any():
        dead = [name for name, is_dead in zip(names, made.dead, strict=True) if is_dead]
        said.append(
            f"The gradient of {', '.join(dead[:8])}{' and others' if len(dead) > 8 else ''} is 0 everywhere in every one of "
            f"{len(made.objective) - 1} steps, so nothing was climbed: the unit is off for the picture of the start and all "
            "near it. Try another seed, the layer before its activation, objective='neuron' or negative=true."
        )
    return " ".join(said)
