from __future__ import annotations

import weakref
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from ..errors import NetworkError, UsageError
from ..fields import Field, fields_of
from ..lens import array_hash, lens, weights_hash
from ..stores import strongest as store
from ..tracing import trace
from ..types import Between, Check, Dataset, Finding, Layer, Network
from ..views import Picture, Table

if TYPE_CHECKING:
    import torch

EVERY = 8  # batches between two writes of the state


@lens(on="b c h w")
def top_examples(
    network: Network,
    data: Dataset,
    *,
    layers: str = "",
    count: Annotated[int, Between(1, 100)] = 9,
    batch: Annotated[int, Between(1, 1024)] = 32,
    keep: str = "",
    shuffles: Annotated[int, Between(20, 1000)] = 100,
    seed: int = 0,
) -> Finding:
    """The patches of a data set that move each feature map most: its strongest place in each of the strongest images.

    Numbers, units × `count` (or fewer, if there are fewer images), the strongest first, ties by the lower image:
    "value" (the largest of the map), "image" (its index), "row" and "column" (where in the map; the first of equals),
    "box" (… × 4: first row, first column, the row after the last and the column after the last of the picture that
    this place sees). "layer" (units: index into provenance["layers"]), "unit" (units: the channel), and, with labels
    of more than one class, "purity" (units: the share of the most frequent class among the strongest). The data are
    read once, batch by batch, and only the winners are kept. The null of the purity is shuffled labels.

    Options:
        layers: names with commas between them; when empty, all with dims "b c h w" that have weights of their own or
            are an activation function.
        count: how many images for each map.
        batch: how many images run at once.
        keep: a folder where the state is kept, so that the same call goes on after it was stopped; "" for none.
        shuffles: how many times the labels are shuffled for the null.
        seed: of the shuffling, and of the noise of the check.

    Raises UnknownName for a layer that does not exist, UsageError for one without maps, NetworkError for values that
    are not finite, StoreError when `keep` holds other work.
    Source: Zeiler and Fergus (2014), "Visualizing and Understanding Convolutional Networks", Fig. 2.

    >>> import torch, neuralmine as nm
    >>> module = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten())
    >>> finding = nm.look("top_examples", nm.load(module, shape=(1, 8, 8)), nm.datasets.load("digits").take(slice(50)))
    >>> finding.numbers["value"].shape, finding.numbers["box"].shape, finding.provenance["layers"]
    ((8, 9), (8, 9, 4), ['0', '1'])
    """
    chosen = chosen_layers(network, layers)
    walk = strongest(network, data, layers=layers, count=count, batch=batch, keep=keep)
    while True:
        try:
            next(walk)
        except StopIteration as stop:
            found = stop.value
            break
    fields = fields_of(network, [layer.name for layer in chosen])
    numbers = _numbers(chosen, found, fields)
    value, image, number = numbers["value"], numbers["image"], numbers["layer"]
    silent = value[:, 0] == 0
    labels = np.asarray(data.labels)
    checks, purity = [], None
    if len(np.unique(labels)) > 1 and value.shape[1] > 1:
        purity = numbers["purity"] = _purity(labels[image])
        if not silent.all():
            checks.append(_purity_check(labels, image[~silent], shuffles, seed))
    # The strongest unit of each layer stands for it in the table, in the check and in the pictures.
    best = [int(np.flatnonzero(number == i)[value[number == i, 0].argmax()]) for i in range(len(chosen))]
    noise = np.random.default_rng(seed)
    checks.append(_patch_check(network, data, chosen, {k: v[best] for k, v in numbers.items()}, batch, noise))
    rows = tuple(
        (
            layer.name,
            int((number == i).sum()),
            int(silent[number == i].sum()),
            *([] if purity is None else [_mean(purity[(number == i) & ~silent])]),
            int(numbers["unit"][u]),
            *(numbers[key][u, 0].item() for key in ("value", "image", "row", "column")),
            _said(numbers["box"][u, 0]) + (" (all)" if fields[layer.name].whole else ""),
        )
        for i, (layer, u) in enumerate(zip(chosen, best, strict=True))
    )
    columns = ("layer", "maps", "silent", *([] if purity is None else ["purity"]), "strongest map")
    table = Table(
        "each layer, and the strongest patch of its strongest map",
        (*columns, "value", "image", "row", "column", "rows × columns of the picture"),
        rows,
    )
    last = best[-1]
    sheet = _patches(data, fields[chosen[-1].name], {k: v[last] for k, v in numbers.items()}, chosen[-1].name)
    whole = {name: field.whole for name, field in fields.items() if field.whole}
    return Finding(
        numbers,
        (*sheet, table),
        tuple(checks),
        summary=f"{len(value)} maps of {len(chosen)} layers over {len(data)} images: the {value.shape[1]} strongest of "
        f"each. {_silence(int(silent.sum()))} "
        + (
            f"The whole picture is taken for the field of {len(whole)} layers: {_reasons(whole)}."
            if whole
            else "All fields were derived from kernels, strides and padding."
        ),
        provenance={
            "layers": [layer.name for layer in chosen],
            "fields": {
                name: {"whole": f.whole} if f.whole else {"size": f.size, "stride": f.stride, "offset": f.offset}
                for name, f in fields.items()
            },
            "data_labels": array_hash(labels),
        },
    )


def chosen_layers(network: Network, layers: str = "") -> list[Layer]:
    """The layers that are named, or all maps with weights of their own or of an activation function.

    Raises UnknownName, UsageError for a layer without maps, NetworkError when there is none.
    """
    fitting = [layer for layer in network.layers if layer.dims == "b c h w"]
    if not layers.strip():
        found = [layer for layer in fitting if layer.parameters or _is_activation(network, layer)]
        if not found:
            raise NetworkError("No layer of this network puts out maps (b c h w).", "Look at another network.")
        return found
    named = {network.layer(name.strip()).name for name in layers.split(",") if name.strip()}
    if without := named - {layer.name for layer in fitting}:
        first = network.layer(sorted(without)[0])
        raise UsageError(
            f"The lens 'top_examples' works on layers with dims 'b c h w'; {first.name!r} has {first.dims!r}.",
            f"Choose from {', '.join(layer.name for layer in fitting) or 'none here'}.",
        )
    return [layer for layer in fitting if layer.name in named]


def strongest(
    network: Network,
    data: Dataset,
    *,
    layers: str = "",
    count: int = 9,
    batch: int = 32,
    keep: str = "",
    every: int = EVERY,
) -> Generator[tuple[int, int], None, dict[str, np.ndarray]]:
    """Walk once over the data, and yield (images seen, all images) after each batch.

    Returns units × count arrays "value", "image" and "place" (row × width + column), all layers one after another.
    With `keep`, the state is written there every so many batches, and the same call goes on from it. Memory holds
    two batches and the winners, whatever the number of images.

    >>> import torch, neuralmine as nm
    >>> net = nm.load(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten()), shape=(1, 8, 8))
    >>> list(strongest(net, nm.datasets.load("digits").take(slice(50))))
    [(32, 50), (50, 50)]
    """
    chosen = chosen_layers(network, layers)
    total = len(data)
    winners = {layer.name: _Winners(layer, min(count, total)) for layer in chosen}
    about = _about(network, data, chosen, count, batch) if keep else {}
    kept = store.load(keep, about) if keep else None
    begin = 0
    if kept:
        begin, arrays = kept
        _set(winners, arrays)
        yield begin, total
    if begin >= total:
        return _all(winners)

    def read(start: int) -> torch.Tensor:
        return network.encode(np.asarray(data.images[start : start + batch]))

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(read, begin)
        for turn, start in enumerate(range(begin, total, batch), 1):
            inputs, done = ahead.result(), min(start + batch, total)
            if done < total:
                ahead = pool.submit(read, done)
            _Batch(network, winners, start).run(inputs)
            if keep and (turn % every == 0 or done == total):
                store.save(keep, about, done, _all(winners))
            yield done, total
    return _all(winners)


class _Winners:
    """The strongest images of each map of one layer so far."""

    def __init__(self, layer: Layer, count: int) -> None:
        self.layer = layer
        self.value = np.full((layer.shape[1], count), -np.inf)
        self.image = np.full((layer.shape[1], count), -1, dtype=np.int64)
        self.place = np.zeros((layer.shape[1], count), dtype=np.int64)

    def meet(self, maps: torch.Tensor, most: np.ndarray, start: int, before: _Winners | None = None) -> None:
        """Let the maps (b c h w) of the images from `start` on compete; `most` (c × b) is the largest of each.

        `before` is given for a ReLU: the winners of the layer that it was given, which have met this batch.
        """
        if maps.shape[1:] != self.layer.shape[1:]:
            raise NetworkError(
                f"{self.layer.name!r} put out {tuple(maps.shape[1:])}, not {self.layer.shape[1:]}.",
                "Give pictures of one size.",
            )
        if not np.isfinite(most).all():
            unit, image = np.argwhere(~np.isfinite(most))[0]
            raise NetworkError(
                f"Map {unit} of {self.layer.name!r} is not finite for image {start + image}.",
                "Look at the network and at that image.",
            )
        count = self.value.shape[1]
        # An equal value does not displace: what is there came earlier.
        units = np.flatnonzero((most > self.value[:, -1:]).any(1))
        if not len(units):
            return
        values = np.concatenate([self.value[units], most[units]], 1)
        order = np.argsort(-values, axis=1, kind="stable")[:, :count]
        self.value[units] = np.take_along_axis(values, order, 1)
        fresh = np.broadcast_to(np.arange(start, start + most.shape[1]), (len(units), most.shape[1]))
        self.image[units] = np.take_along_axis(np.concatenate([self.image[units], fresh], 1), order, 1)
        places = np.take_along_axis(self.place[units], np.minimum(order, count - 1), 1)
        row, slot = np.nonzero(order >= count)
        unit, image = units[row], self.image[units[row], slot]
        where = np.full(len(row), -1)
        if before is not None:
            # What is above 0 is largest where it was before the ReLU; a map of zeros, at its first place.
            same = before.image[unit] == image[:, None]
            where[same.any(1)] = before.place[unit][same]
            where[self.value[unit, slot] == 0] = 0
        # Only of the few that won is it asked where.
        ask = where < 0
        where[ask] = _first_largest(maps.detach().flatten(2), image[ask] - start, unit[ask])
        places[row, slot] = where
        self.place[units] = places


def _first_largest(flat: torch.Tensor, image: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Where these maps are largest, the first place of equals."""
    if flat.shape[2] < 1000 or flat.device.type != "cpu" or flat.element_size() < 4:
        return flat[image, unit].argmax(1).cpu().numpy()
    # Copying large maps side by side would take longer than looking at each where it lies.
    maps = flat.numpy()
    return np.array([maps[i, u].argmax() for i, u in zip(image.tolist(), unit.tolist(), strict=True)], dtype=np.int64)


class _Batch:
    """One run of the network on one batch, in which every chosen layer is looked at as it comes."""

    def __init__(self, network: Network, winners: dict[str, _Winners], start: int) -> None:
        self.network, self.winners, self.start = network, winners, start
        self.seen: set[str] = set()
        self.found: dict[int, tuple[weakref.ref[torch.Tensor], int, np.ndarray, _Winners]] = {}
        self.coming: dict[str, tuple[np.ndarray, _Winners]] = {}

    def run(self, inputs: torch.Tensor) -> None:
        # What an "edit" is given has just been put out: nothing is held longer than the network itself does.
        edits = {name: partial(self.look, name) for name in self.winners}
        with ExitStack() as stack:
            for name in self.winners:
                part = self.network.module.get_submodule(name.partition("#")[0])
                if "#" not in name and _is_plain_relu(part):
                    stack.callback(part.register_forward_pre_hook(partial(self.before, name)).remove)
            try:
                trace(self.network, inputs, layers=[list(self.winners)[-1]], edits=edits)
            except UsageError as error:
                raise (error.__cause__ if isinstance(error.__cause__, NetworkError) else error) from None
        if missing := self.winners.keys() - self.seen:
            raise NetworkError(f"Layer {min(missing)!r} was not reached.", "Choose other layers.")

    def before(self, name: str, part: Any, given: tuple[Any, ...]) -> None:
        """Of a ReLU that is given what was just looked at, the largest values are known without reading it again."""
        known = self.found.get(id(given[0])) if given else None
        if known and known[0]() is given[0] and known[1] == given[0]._version and name not in self.seen:
            self.coming[name] = np.maximum(known[2], 0.0), known[3]

    def look(self, name: str, maps: torch.Tensor) -> torch.Tensor:
        self.seen.add(name)
        most, before = self.coming.pop(name, (None, None))
        if most is None:
            most = maps.detach().flatten(2).amax(2).double().cpu().numpy().T
        self.winners[name].meet(maps, most, self.start, before)
        if not maps.is_inference():  # those have no version
            self.found[id(maps)] = (weakref.ref(maps), maps._version, most, self.winners[name])
        return maps


def _is_plain_relu(part: torch.nn.Module) -> bool:
    kind = type(part)
    plain = f"{kind.__module__}.{kind.__name__}" == "torch.nn.modules.activation.ReLU"
    return plain and not (part._forward_hooks or part._forward_pre_hooks or "forward" in part.__dict__)


def _all(winners: dict[str, _Winners]) -> dict[str, np.ndarray]:
    return {key: np.concatenate([getattr(w, key) for w in winners.values()]) for key in ("value", "image", "place")}


def _set(winners: dict[str, _Winners], arrays: dict[str, np.ndarray]) -> None:
    begin = 0
    for found in winners.values():
        end = begin + len(found.value)
        for key in ("value", "image", "place"):
            getattr(found, key)[...] = arrays[key][begin:end]
        begin = end


def _about(network: Network, data: Dataset, chosen: list[Layer], count: int, batch: int) -> dict[str, Any]:
    """All that the winners depend on."""
    first = network.encode(np.asarray(data.images[:1]))
    return {
        "weights": weights_hash(network),
        "data": array_hash(data.images),
        "images": len(data),
        "the first picture as the network reads it": array_hash(first.detach().cpu().numpy()),
        "layers": [[layer.name, *layer.shape[1:]] for layer in chosen],
        "count": count,
        "batch": batch,
    }


def _is_activation(network: Network, layer: Layer) -> bool:
    kind = type(network.module.get_submodule(layer.name.partition("#")[0]))
    return kind.__module__ == "torch.nn.modules.activation" and kind.__name__ != "MultiheadAttention"


def _numbers(chosen: list[Layer], found: dict[str, np.ndarray], fields: dict[str, Field]) -> dict[str, np.ndarray]:
    number = np.repeat(np.arange(len(chosen)), [layer.shape[1] for layer in chosen])
    unit = np.concatenate([np.arange(layer.shape[1]) for layer in chosen])
    widths = np.array([layer.shape[3] for layer in chosen])[number][:, None]
    row, column = found["place"] // widths, found["place"] % widths
    boxes = [fields[layer.name].box(row[number == i], column[number == i]) for i, layer in enumerate(chosen)]
    numbers = {"value": found["value"], "image": found["image"], "row": row, "column": column}
    return {**numbers, "box": np.concatenate(boxes), "layer": number, "unit": unit}


def _purity(labels: np.ndarray) -> np.ndarray:
    """The share of the most frequent label in each row.

    >>> _purity(np.array([[3, 1, 3, 3], [0, 1, 2, 4]])).tolist()
    [0.75, 0.25]
    """
    counts = np.stack([(labels == labels[:, [j]]).sum(1) for j in range(labels.shape[1])])
    return counts.max(0) / labels.shape[1]


def _purity_check(labels: np.ndarray, image: np.ndarray, shuffles: int, seed: int) -> Check:
    generator = np.random.default_rng(seed)
    null = np.array([_purity(generator.permutation(labels)[image]).mean() for _ in range(shuffles)])
    measured, bar = float(_purity(labels[image]).mean()), float(np.quantile(null, 0.95))
    return Check(
        "the strongest images are of one class",
        measured,
        bar,
        None,
        measured > bar,
        f"Mean share of the most frequent class among the {image.shape[1]} strongest, over the {len(image)} maps that are "
        f"not silent, against the 95th percentile of {shuffles} shuffles of the labels.",
    )


def _patch_check(
    network: Network,
    data: Dataset,
    chosen: list[Layer],
    best: dict[str, np.ndarray],
    batch: int,
    generator: np.random.Generator,
) -> Check:
    """Is the value the patch's own? All of the picture that the place is said not to see is replaced by noise."""
    import torch

    gap = 0.0
    for begin in range(0, len(chosen), batch):
        some = range(begin, min(begin + batch, len(chosen)))
        raw = np.stack([np.asarray(data.images[int(best["image"][i, 0])]) for i in some])
        inputs = network.encode(raw).clone()
        noise = network.encode(generator.uniform(0, 1, raw.shape))
        outside = torch.ones(inputs.shape, dtype=torch.bool)
        for k, i in enumerate(some):
            top, left, bottom, right = best["box"][i, 0].tolist()
            outside[k, ..., top:bottom, left:right] = False
        inputs = torch.where(outside, noise, inputs)
        again: dict[str, float] = {}

        def look(k: int, i: int, maps: torch.Tensor, again: dict[str, float] = again) -> torch.Tensor:
            row, column = best["row"][i, 0].item(), best["column"][i, 0].item()
            again[chosen[i].name] = float(maps[k, best["unit"][i].item(), row, column])
            return maps

        edits = {chosen[i].name: partial(look, k, i) for k, i in enumerate(some)}
        trace(network, inputs, layers=[chosen[some[-1]].name], edits=edits)
        for i in some:
            value = float(best["value"][i, 0])
            gap = max(gap, abs(again[chosen[i].name] - value) / (abs(value) or 1.0))
    return Check(
        "nothing outside the patch matters",
        gap,
        None,
        None,
        gap < 1e-3,
        "Largest relative change of a value when all of the picture outside its patch is replaced by noise, for the "
        "strongest patch of each layer.",
    )


def _patches(data: Dataset, field: Field, best: dict[str, np.ndarray], layer: str) -> tuple[Picture, ...]:
    """The patches of one map as a sheet; at the edge a patch is moved inwards, so that all have one size."""
    rows, columns = len(data.images[0]), len(data.images[0][0])
    high, wide = (int((best["box"][:, k + 2] - best["box"][:, k]).max()) for k in (0, 1))
    shown = []
    for image, (top, left, _, _) in zip(best["image"], best["box"], strict=True):
        picture = np.asarray(data.images[int(image)])
        picture = picture[..., None] if picture.ndim == 2 else picture
        if picture.ndim != 3 or picture.shape[2] not in (1, 3) or high > rows or wide > columns:
            return ()
        top, left = max(0, min(int(top), rows - high)), max(0, min(int(left), columns - wide))
        patch = picture[top : top + high, left : left + wide].astype(np.float32)
        shown.append(np.broadcast_to(patch, (*patch.shape[:2], 3)))
    pixels = np.stack(shown)
    if not (pixels.size and pixels.min() >= 0 and pixels.max() <= 1):
        return ()
    names = tuple(f"{i} {data.classes[data.labels[i]]}" for i in best["image"])
    seen = "the whole pictures" if field.whole else f"patches of {high} × {wide}"
    return (Picture(f"map {best['unit']} of {layer}: {seen} that move it most", pixels, names),)


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _silence(count: int) -> str:
    if not count:
        return "None is silent."
    return f"{count} {'is' if count == 1 else 'are'} silent: the value is 0, and the images are only the first ones."


def _said(box: np.ndarray) -> str:
    top, left, bottom, right = box.tolist()
    return f"{top}–{bottom - 1} × {left}–{right - 1}"


def _reasons(whole: dict[str, str]) -> str:
    first = next(iter(whole))
    return f"{first} lies {whole[first]}" if whole[first].startswith("behind") else f"{first}, {whole[first]}"
