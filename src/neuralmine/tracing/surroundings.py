"""The module around a run: everything about it is left as it was found."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import NetworkError
from .values import version_of

if TYPE_CHECKING:
    from torch.nn import Module


def compiled(parts: Mapping[str, Module]) -> dict[str, str]:
    """The modules that run no hooks, with why. The root's own name is left out."""
    import torch

    scripts = [name for name, part in parts.items() if isinstance(part, torch.jit.ScriptModule)]
    if not scripts:
        return {}
    return {
        name: "it is compiled by TorchScript, which runs no hooks"
        for name in parts
        if name and any(name == script or not script or name.startswith(f"{script}.") for script in scripts)
    }


@contextmanager
def uncompiled() -> Iterator[None]:
    """What torch.compile made runs no hooks inside, so for this run the Python code is run."""
    if "torch._dynamo" not in sys.modules:
        yield
        return
    import torch

    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def left_as_found(module: Module) -> Iterator[None]:
    """Eval mode inside; after it the flags, buffers and random generators are as they were.

    Flags are set one by one, since a module's own `train()` may do more than set them. Raises NetworkError when the
    module wrote to its own weights.
    """
    import torch

    parts = list(module.modules())
    training = [part for part in parts if part.training]
    # Small, and some modules count or cache in them; so do embeddings with a maximum norm in their weights.
    kept: list[tuple[Module, Any, dict[str, Any]]]
    kept = [(part, part._buffers, dict(part._buffers)) for part in parts if part._buffers]
    kept += [(p, p._parameters, dict(p._parameters)) for p in parts if getattr(p, "max_norm", None) is not None]
    copies = {id(t): (t, t.clone(), version_of(t)) for *_, states in kept for t in states.values() if t is not None}
    versions = [
        (part, name, p, version_of(p))
        for part in parts
        for name, p in part._parameters.items()
        if p is not None and id(p) not in copies
    ]
    restore_randomness = _random_states()
    try:
        for part in training:
            part.training = False
        yield
        for part, name, parameter, version in versions:
            if version_of(parameter) != version or dict(part._parameters).get(name) is not parameter:
                raise NetworkError(
                    f"The network changed its own weights ({name!r} of a {type(part).__name__}) while it ran.",
                    "Make its forward leave the weights alone in eval mode.",
                )
    finally:
        for part in training:
            part.training = True
        for part, states, before in kept:
            for name, tensor in before.items():
                if not isinstance(part, torch.jit.ScriptModule) and states.get(name) is not tensor:
                    states[name] = tensor
        with torch.no_grad():
            for tensor, was, version in copies.values():
                if version_of(tensor) != version:
                    tensor.copy_(was)
        restore_randomness()


def _random_states() -> Callable[[], None]:
    """A function that sets every random generator back to where it stands now."""
    import torch

    cpu, numpy, python = torch.get_rng_state(), np.random.get_state(), random.getstate()
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None

    def restore() -> None:
        torch.set_rng_state(cpu)
        np.random.set_state(numpy)
        random.setstate(python)
        if gpus is not None:
            torch.cuda.set_rng_state_all(gpus)

    return restore
