"""Any torch.nn.Module as a Network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError, NetworkError, UsageError
from ..losses import LOSSES
from ..tracing import describe
from ..types import Network, Prediction, Source

if TYPE_CHECKING:
    import torch


def network_of(
    module: torch.nn.Module,
    *,
    shape: Sequence[int] | None = None,
    labels: Sequence[str] | None = None,
    loss: str = "cross_entropy",
    mean: Sequence[float] | float = 0.0,
    std: Sequence[float] | float = 1.0,
    domain: str | None = None,
    source: Source | None = None,
    name: str = "",
) -> Network:
    """Wrap a module so that Neuralmine can look into it.

    `shape` is one input's shape, without the batch; it is inferred when the first weights belong to a Linear.
    Raw inputs are arrays of that shape, or batches of them; (value − mean) / std goes into the module.
    `loss` says how the outputs are read: "cross_entropy" for logits, "squared" for activations in 0..1.
    Raises NetworkError when the shape cannot be inferred or the module does not run on it, UsageError for options
    that do not fit.

    >>> import torch
    >>> net = network_of(torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()))
    >>> [layer.name for layer in net.layers]
    ['0', '1']
    """
    import torch

    if loss not in LOSSES:
        raise UsageError(f"loss {loss!r} is not known.", f"Use one of {', '.join(LOSSES)}.")
    check_weights(module)
    wanted = tuple(int(n) for n in shape) if shape is not None else _inferred_shape(module)
    first = next(module.parameters(), None)
    dtype = first.dtype if first is not None else torch.get_default_dtype()
    example = torch.zeros((1, *wanted), dtype=dtype)
    layers, untraced = describe(module, example)
    with torch.no_grad():
        flags = [(part, part.training) for part in module.modules()]
        output = module.eval()(example)
        for part, flag in flags:  # each its own: a user may have put a part of a training network into eval mode
            part.training = flag
    outputs = output.shape[1] if isinstance(output, torch.Tensor) and output.ndim == 2 else 0
    names = tuple(labels) if labels is not None else tuple(str(i) for i in range(2 if outputs == 1 else outputs))
    if outputs and len(names) != (2 if outputs == 1 else outputs):
        raise UsageError(f"{len(names)} labels for {outputs} outputs.", "Give one label for each output.")
    return Network(
        module=module,
        encode=encoder(wanted, dtype, mean, std),
        decode=decoder(names, loss),
        labels=names,
        layers=layers,
        domain=domain or ("pixels" if len(wanted) >= 2 else "vector"),
        shape=wanted,
        source=source or Source(f"the caller's {type(module).__name__}"),
        loss=loss,
        name=name or type(module).__name__,
        untraced=untraced,
    )


def encoder(
    shape: tuple[int, ...], dtype: torch.dtype, mean: Any = 0.0, std: Any = 1.0
) -> Callable[[Any], torch.Tensor]:
    """A function from raw values (one input of `shape`, or a batch) to the tensor the module takes."""
    import torch

    def encode(raw: Any) -> torch.Tensor:
        try:
            array = np.asarray(raw, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"This input is no array of numbers: {error}.", f"Give numbers of shape {shape}.") from None
        array = _channels_first(array, shape)
        if array.shape == shape or (array.size == int(np.prod(shape)) and array.ndim == 1):
            array = array.reshape(1, *shape)
        elif array.shape[1:] != shape:
            raise DataError(
                f"The input has shape {array.shape}; this network takes {shape}, or a batch of them.",
                "Resize the picture, or load a network for this size.",
            )
        if not np.isfinite(array).all():
            where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0][1:])
            raise DataError(f"The input is not a number at {where}.", "Replace missing values before looking.")
        channels = (-1,) + (1,) * (len(shape) - 1)
        normalised = (
            (array - np.reshape(mean, channels)) / np.reshape(std, channels) if np.ndim(mean) else (array - mean) / std
        )
        return torch.as_tensor(normalised, dtype=dtype)

    return encode


def _channels_first(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Pictures as data sets hold them (h × w, or h × w × c) in the order of a network that takes c × h × w."""
    if len(shape) != 3 or array.shape == shape or array.shape[1:] == shape:
        return array
    rows_and_columns = shape[1:]
    if shape[0] == 1 and array.shape[-2:] == rows_and_columns and array.ndim <= 3:
        return array[..., None, :, :]
    return np.moveaxis(array, -1, -3) if array.shape[-3:] == (*rows_and_columns, shape[0]) else array


def decoder(labels: tuple[str, ...], loss: str) -> Callable[[torch.Tensor], list[Prediction]]:
    """A function from the module's output to one Prediction an item: softmax of logits, or the activations themselves."""
    import torch

    def decode(output: torch.Tensor) -> list[Prediction]:
        if not isinstance(output, torch.Tensor) or output.ndim != 2:
            raise NetworkError(
                "This network's output is not one row of numbers an input.", "Look at its layers instead."
            )
        values = output.detach()
        if loss == "cross_entropy":
            scores, measure = values.double().softmax(1), "probability"
        else:
            scores, measure = values, "activation"
            if values.shape[1] == 1:
                scores = torch.cat([1 - values, values], 1)
        return [Prediction(labels, row, measure) for row in scores.cpu().numpy()]

    return decode


def check_weights(module: torch.nn.Module) -> None:
    """Raises NetworkError naming the first parameter that holds a NaN or an infinity."""
    import torch

    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            bad = int((~torch.isfinite(tensor)).sum())
            raise NetworkError(
                f"The weights {name!r} hold {bad} value{'s' if bad > 1 else ''} that are not numbers (NaN or infinite).",
                "Load weights from before the training broke, or train again with a lower learning rate.",
            )


def _inferred_shape(module: torch.nn.Module) -> tuple[int, ...]:
    import torch

    for part in module.modules():
        if isinstance(part, torch.nn.Linear):
            return (part.in_features,)
        if next(part.parameters(recurse=False), None) is not None:
            break
    raise NetworkError("The shape of this network's input is not known.", "Give it: load(module, shape=(3, 224, 224)).")
