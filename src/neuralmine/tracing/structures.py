"""Tensors inside tuples, lists, dicts and dataclasses: found, and replaced."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor


def tensors_of(value: Any) -> list[Tensor]:
    """The tensors in nested tuples, lists, dicts and dataclasses, in order.

    >>> import torch
    >>> [tuple(t.shape) for t in tensors_of((torch.zeros(2), {"a": [torch.zeros(3), None]}, "text"))]
    [(2,), (3,)]
    """
    found: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    mapped(value, keep)
    return found


def mapped(value: Any, change: Callable[[Tensor], Tensor], inside: tuple[int, ...] = ()) -> Any:
    """`value` with `change` done to each of its tensors, in order; `value` itself when none of them changed."""
    import torch

    if isinstance(value, torch.Tensor):
        return change(value)
    entries = _entries(value)
    if not entries or id(value) in inside:
        return value
    new = [(key, mapped(entry, change, (*inside, id(value)))) for key, entry in entries]
    same = all(a is b for (_, a), (_, b) in zip(entries, new, strict=True))
    return value if same else _with_entries(value, new)


def _entries(value: Any) -> list[tuple[Any, Any]]:
    # Most things are one of the first, and asking a Mapping what it is takes long.
    if value is None or isinstance(value, (bool, int, float, str)):
        return []
    if isinstance(value, (list, tuple)):
        return list(enumerate(value))
    if isinstance(value, (dict, Mapping)):
        return list(value.items())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value) if hasattr(value, f.name)]
    return []


def _with_entries(value: Any, entries: list[tuple[Any, Any]]) -> Any:
    """A copy of `value`, of the same type, with these entries."""
    if isinstance(value, tuple):
        items = [entry for _, entry in entries]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    try:
        new = copy.copy(value)
        for key, entry in entries:
            if isinstance(value, (Mapping, list)):
                new[key] = entry  # type: ignore[index]
            else:
                object.__setattr__(new, key, entry)  # frozen ones too
    except (TypeError, AttributeError) as error:
        raise UsageError(
            f"A tensor inside a {type(value).__name__} cannot be replaced: {error}.", "Edit another layer."
        ) from error
    return new
