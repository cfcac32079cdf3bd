"""A lens is a plain function; its signature is its interface. This file reads signatures and keeps promises.

    @lens(on="b d")
    def confusion(network: Network, data: Dataset, *, limit: int = 24) -> Finding: ...

Positional parameters are nouns, found by annotation. Keyword-only parameters are options; their help is the
docstring's "Options:" part. A call through the decorator checks the options, leaves the network as it found it,
and stamps the finding with its lens, parameters and provenance.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import random
import re
import sys
import threading
import types as python_types
import typing
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .errors import NetworkError, NeuralmineError, UnknownName, UsageError
from .types import Between, Dataset, Finding, Input, Network, Trace

GROUP = "neuralmine.lenses"
# Lenses put hooks on modules and restore random generators: two at a time in one process would disturb each other.
_one_at_a_time = threading.RLock()
_NOUNS = {Network: "network", Trace: "trace", Dataset: "data"}


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a lens: its plain type, default, allowed values or range, and what it does."""

    name: str
    type: str  # "layer", "unit", "target", "number", "integer", "switch", "text" or "choice"
    default: Any
    choices: tuple[str, ...] = ()
    between: tuple[float, float] | None = None
    help: str = ""
    required: bool = False


@dataclass(frozen=True, slots=True)
class Lens:
    """What a lens is called, what it takes, and the function itself."""

    name: str
    summary: str
    on: str
    reads: str
    nouns: tuple[str, ...]
    options: tuple[Option, ...]
    function: Callable[..., Finding]


def lens(on: str = "", reads: str = "") -> Callable[[Callable[..., Finding]], Callable[..., Finding]]:
    """Make a plain function a lens. `on` names the dims of the layer it needs, `reads` the domain ("" for any)."""

    def decorate(function: Callable[..., Finding]) -> Callable[..., Finding]:
        @functools.wraps(function)
        def seen(*nouns: Any, **options: Any) -> Finding:
            spec = seen.__lens__  # type: ignore[attr-defined]
            nouns = _bind(spec, nouns)
            options = _check(spec, options)
            networks = [noun for noun in nouns if isinstance(noun, Network)]
            for network in networks:
                _check_domain(spec, network)
                _check_layers(spec, network, options)
            with left_as_found(networks):
                finding = function(*nouns, **options)
            return replace(
                finding,
                lens=spec.name,
                params=dict(options),
                provenance={**_provenance(nouns), **finding.provenance},
            )

        seen.__lens__ = replace(_read(function, on, reads), function=seen)  # type: ignore[attr-defined]
        return seen

    return decorate


def look(name: str, *nouns: Any, **options: Any) -> Finding:
    """Look through a lens: `look("neuron", network, image, layer="hidden1", unit=3)`.

    Raises UnknownName for a lens, option or layer that does not exist, UsageError for a value that does not fit.
    """
    return find(name).function(*nouns, **options)


@functools.cache
def find(name: str) -> Lens:
    """The lens of that name, built in or from an outside package. Raises UnknownName."""
    listed = summaries()
    name = name.replace("-", "_")
    if name not in listed:
        raise UnknownName("lens", name, listed)
    for entry in entry_points(group=GROUP):
        if entry.name == name:
            return entry.load().__lens__
    return getattr(importlib.import_module(f"neuralmine.lenses.{name}"), name).__lens__


@functools.cache
def summaries() -> Mapping[str, str]:
    """Every lens's name and first line, without importing any of them (listing must not load torch)."""
    found = first_lines(Path(__file__).parent / "lenses")
    for entry in entry_points(group=GROUP):
        where = importlib.util.find_spec(entry.module)
        source = Path(where.origin).read_text() if where and where.origin else ""
        found[entry.name] = _first_line(source, entry.attr)
    return dict(sorted(found.items()))


def first_lines(folder: Path) -> dict[str, str]:
    """The functions named like their files in a folder, each with the first line of its docstring; nothing is run."""
    names = [module.name for module in pkgutil.iter_modules([str(folder)]) if not module.name.startswith("_")]
    return {name: _first_line((folder / f"{name}.py").read_text(), name) for name in names}


def _first_line(source: str, function: str) -> str:
    # Compiled, never run; not parsed by `ast`, which breaks in CPython 3.11 when two threads use it at once.
    for code in compile(source, function, "exec", dont_inherit=True, optimize=0).co_consts:
        if isinstance(code, python_types.CodeType) and code.co_name == function:
            said = code.co_consts[0]
            return said.strip().split("\n")[0] if isinstance(said, str) else ""
    return ""


@contextmanager
def left_as_found(networks: list[Network]) -> Iterator[None]:
    """Restore what looking may touch: train/eval flags, gradients, requires_grad, and every random generator."""
    if "torch" not in sys.modules:
        yield
        return
    with _one_at_a_time:
        yield from _restored(networks)


def _restored(networks: list[Network]) -> Iterator[None]:
    import torch

    modules = [module for network in networks for module in network.module.modules()]
    parameters = [parameter for network in networks for parameter in network.module.parameters()]
    training = [module.training for module in modules]
    gradients = [(p.grad, p.requires_grad) for p in parameters]
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        for module, flag in zip(modules, training, strict=True):
            module.training = flag
        for parameter, (gradient, wanted) in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
            parameter.requires_grad_(wanted)
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


def _read(function: Callable[..., Finding], on: str, reads: str) -> Lens:
    hints = typing.get_type_hints(function, include_extras=True)
    texts = _option_texts(function.__doc__ or "")
    nouns: list[str] = []
    options: list[Option] = []
    for parameter in inspect.signature(function).parameters.values():
        hint = hints[parameter.name]
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            options.append(_option(parameter, hint, texts.get(parameter.name, "")))
        else:
            nouns.append("input" if hint == Input else _NOUNS[hint])
    summary = (inspect.getdoc(function) or "").split("\n")[0]
    return Lens(function.__name__, summary, on, reads, tuple(nouns), tuple(options), function)


def _option(parameter: inspect.Parameter, hint: Any, text: str) -> Option:
    kind, choices, between = "text", (), None
    extras = getattr(hint, "__metadata__", ())
    plain = typing.get_args(hint)[0] if extras else hint
    if isinstance(plain, python_types.UnionType):
        plain = next(a for a in typing.get_args(plain) if a is not type(None))
    if typing.get_origin(plain) is Literal:
        kind, choices = "choice", tuple(typing.get_args(plain))
    else:
        kind = {int: "integer", float: "number", bool: "switch"}.get(plain, "text")
    for extra in extras:
        if isinstance(extra, str):
            kind = extra
        if isinstance(extra, Between):
            between = (extra.low, extra.high)
    required = parameter.default is inspect.Parameter.empty
    return Option(parameter.name, kind, None if required else parameter.default, choices, between, text, required)


def _option_texts(doc: str) -> dict[str, str]:
    part = re.search(r"^\s*Options:\n((?:[ \t]+.+\n?)+)", inspect.cleandoc(doc), re.M)
    texts: dict[str, str] = {}
    for line in part.group(1).splitlines() if part else []:
        named = re.match(r"\s{2,4}(\w+): (.+)", line)
        if named:
            texts[named.group(1)] = named.group(2).strip()
        elif texts:
            texts[list(texts)[-1]] += " " + line.strip()
    return texts


def _bind(spec: Lens, nouns: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(nouns) != len(spec.nouns):
        raise UsageError(
            f"The lens {spec.name!r} takes {', '.join(spec.nouns)}; {len(nouns)} given.",
            f"Call look({spec.name!r}, {', '.join(spec.nouns)}, …).",
        )
    for noun, wanted in zip(nouns, spec.nouns, strict=True):
        expected = {"network": Network, "trace": Trace, "data": Dataset}.get(wanted)
        if expected and not isinstance(noun, expected):
            hint = "Make one with neuralmine.load(…)." if wanted == "network" else f"Give a {expected.__name__}."
            raise UsageError(f"The lens {spec.name!r} needs a {expected.__name__}, not {type(noun).__name__}.", hint)
    return nouns


def _check(spec: Lens, given: Mapping[str, Any]) -> dict[str, Any]:
    by_name = {option.name: option for option in spec.options}
    for name in given:
        if name not in by_name:
            raise UnknownName(f"option of {spec.name}", name, by_name)
    values: dict[str, Any] = {}
    for option in spec.options:
        if option.name not in given:
            if option.required:
                raise UsageError(f"The lens {spec.name!r} needs {option.name}.", f"{option.help} Give {option.name}=….")
            values[option.name] = option.default
        else:
            values[option.name] = _value(spec, option, given[option.name])
    return values


def _value(spec: Lens, option: Option, value: Any) -> Any:
    where = f"{option.name} of the lens {spec.name!r}"
    if value is None and option.default is None:
        return None
    if option.choices and value not in option.choices:
        raise UsageError(f"{where} cannot be {value!r}.", f"Use one of {', '.join(map(str, option.choices))}.")
    number = {"integer": int, "unit": int, "number": float}.get(option.type)
    if number:
        try:
            converted = number(value)
        except (TypeError, ValueError):
            raise UsageError(f"{where} must be a number, not {value!r}.", "Give a number.") from None
        if isinstance(value, float) and converted != value:
            raise UsageError(f"{where} must be a whole number, not {value!r}.", "Give a whole number.")
        value = converted
        if option.between and not option.between[0] <= value <= option.between[1]:
            low, high = option.between
            raise UsageError(
                f"{where} is {value:g}; it must lie from {low:g} to {high:g}.", "Choose a value in between."
            )
    if option.type == "switch" and not isinstance(value, bool):
        raise UsageError(f"{where} must be true or false, not {value!r}.", "Give true or false.")
    return value


def _check_domain(spec: Lens, network: Network) -> None:
    if spec.reads and spec.reads != network.domain:
        raise NetworkError(
            f"The lens {spec.name!r} needs a network that reads {spec.reads}; {network.name or 'this one'} reads {network.domain}.",
            "Load another network; `neuralmine networks` lists what there is.",
        )


def _check_layers(spec: Lens, network: Network, options: dict[str, Any]) -> None:
    """A layer that was named must exist and have the dims the lens works on; "last" is the last that has."""
    fitting = [layer for layer in network.layers if not spec.on or _fits(spec.on, layer.dims)]
    for option in spec.options:
        if option.type != "layer" or options[option.name] in (None, ""):
            continue
        if options[option.name] == "last":
            if not fitting:
                raise NetworkError(f"No layer of this network has dims {spec.on!r}, as {spec.name!r} needs.", "")
            options[option.name] = fitting[-1].name
        layer = network.layer(options[option.name])
        if layer not in fitting:
            raise UsageError(
                f"The lens {spec.name!r} works on layers with dims {spec.on!r}; {layer.name!r} has {layer.dims!r}.",
                f"Choose one of {', '.join(item.name for item in fitting) or 'none here'}.",
            )


def _fits(wanted: str, dims: str) -> bool:
    return any(option.split() == dims.split() for option in wanted.split("|"))


def _provenance(nouns: tuple[Any, ...]) -> dict[str, Any]:
    stamp: dict[str, Any] = {"neuralmine": version("neuralmine"), "numpy": np.__version__}
    if "torch" in sys.modules:
        stamp["torch"] = sys.modules["torch"].__version__
    for noun in nouns:
        if isinstance(noun, Network):
            stamp["network"] = noun.name or type(noun.module).__name__
            stamp["weights"] = weights_hash(noun)
        elif isinstance(noun, Dataset):
            stamp["data"] = noun.name
            stamp["data_hash"] = array_hash(noun.images)
        elif isinstance(noun, Trace):
            stamp["input_hash"] = array_hash(noun.input.detach().cpu().numpy())
        else:
            try:
                stamp["input_hash"] = array_hash(np.asarray(noun))
            except Exception as error:  # whatever cannot become an array was refused by the lens already
                raise NeuralmineError(f"This input cannot be hashed: {error}.") from error
    return stamp


def array_hash(array: Any) -> str:
    """A short fingerprint of numbers. What is read lazily says its own, so that it need not be read to be hashed."""
    if hasattr(array, "fingerprint"):
        return array.fingerprint()
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


# Fingerprints by module, with the state they were taken of: hashing 90 MB at every look would take longer than looking.
_fingerprints: weakref.WeakKeyDictionary[Any, tuple[tuple, str]] = weakref.WeakKeyDictionary()


def weights_hash(network: Network) -> str:
    """A short fingerprint of all parameters and buffers; two networks that share it compute the same."""
    tensors = network.module.state_dict().values()
    state = tuple((tensor.data_ptr(), tensor._version) for tensor in tensors)
    large = sum(tensor.numel() for tensor in tensors) > 1_000_000
    if large and _fingerprints.get(network.module, ((), ""))[0] == state:
        return _fingerprints[network.module][1]
    digest = hashlib.sha256()
    for name, tensor in network.module.state_dict().items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
    _fingerprints[network.module] = (state, digest.hexdigest()[:16])
    return digest.hexdigest()[:16]
