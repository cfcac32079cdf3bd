"""watch(): two lines around somebody's own training loop, and a recording that can be scrubbed afterwards.

The loop says when a step was taken (`run.step`), rather than a hook on the optimizers: it has the metrics, with two
optimizers only it knows which updates make one step, and no hook can be left behind or missed.
"""

from __future__ import annotations

import numbers
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .errors import NeuralmineError, StoreError, UsageError
from .stores import recordings
from .stores.recordings import Recorded
from .tracing import describe
from .tracing import trace as traced
from .types import Activation, Network, Source

if TYPE_CHECKING:
    from io import FileIO

    import torch
    from torch import Tensor


def watch(
    model: torch.nn.Module | Network,
    every: int = 50,
    *,
    trace: Any = None,
    labels: Any = None,
    optimizer: torch.optim.Optimizer | None = None,
    gradients: bool = True,
    folder: Path | str | None = None,
) -> Watching:
    """Record a model while your own loop trains it; call `run.step(loss=…)` once after each optimizer step.

    The metrics of every step are written as it is taken. Before the first step, after every `every` of them and at the
    end of the block, the weights, the gradients in `.grad` (call before clearing them) and, when a batch is given as
    `trace`, what each layer makes of it in eval mode. `trace` is a tensor the model takes, or raw inputs for a Network.
    `labels` are the classes of that batch, one whole number each: with them the page says which answers are right. With
    plain SGD given as `optimizer`, each record keeps its rates, so that every update can be checked to be −rate × gradient
    (call `run.step` before a scheduler changes them). `folder` is a new or empty folder; by default one of its own under NEURALMINE_HOME/recordings.

    Training is not changed by a bit. A kill at any moment loses at most the last record, if it was being written. When
    the disk is full, recording stops, training goes on, and the block ends with a StoreError.

    Raises UsageError for a model without parameters or with lazy ones, for `every` below 1 and for labels that do not
    fit the batch, StoreError when the
    folder cannot be written, NetworkError when the batch cannot be traced: all before training begins.

    >>> import tempfile, torch, neuralmine as nm
    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with nm.watch(model, every=50, folder=folder) as run:
    ...         for _ in range(100):
    ...             optimizer.zero_grad()
    ...             loss = (model(torch.ones(4, 2)) ** 2).mean()
    ...             loss.backward()
    ...             optimizer.step()
    ...             run.step(loss=loss)
    ...     nm.load_recording(folder).steps
    [0, 50, 100]
    """
    return Watching(model, every, trace, labels, optimizer, gradients, folder)


class Watching:
    """A block being watched. `path` is its folder and `index` the number of steps taken."""

    def __init__(
        self, model: torch.nn.Module | Network, every: int, batch: Any, labels: Any,
        optimizer: torch.optim.Optimizer | None, gradients: bool, folder: Path | str | None,
    ) -> None:  # fmt: skip
        import torch

        self.module = model.module if isinstance(model, Network) else model
        if not isinstance(self.module, torch.nn.Module):
            raise UsageError(f"watch was given a {type(model).__name__}.", "Give a torch.nn.Module or a Network.")
        if isinstance(every, bool) or not isinstance(every, numbers.Integral) or every < 1:
            raise UsageError(f"every is {every!r}.", "Give a whole number of steps, 1 or more.")
        parameters = list(self.module.parameters())
        if not parameters:
            raise UsageError(
                f"This {type(self.module).__name__} has no parameters, so nothing in it can change.",
                "Give the module that the optimizer trains.",
            )
        if any(torch.nn.parameter.is_lazy(t) for t in (*parameters, *self.module.buffers())):
            raise UsageError(
                "Some weights do not exist yet: the model has lazy modules.", "Run it once, then watch it."
            )
        self.every, self.gradients, self.index = int(every), gradients, 0
        self.path: Path | None = None
        self._given, self._batch, self._folder = model, batch, folder
        self._labels, self._optimizer = labels, optimizer
        self._network: Network | None = None
        self._metrics: dict[str, float] = {}
        self._waiting: list[tuple[int, dict[str, Any]]] = []  # steps whose metrics still lie on an accelerator
        self._recorded = 0  # the last step whose weights were taken
        self._open = False
        self._failure: NeuralmineError | None = None
        self._events: FileIO | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._writing: Future[Path] | None = None

    def __enter__(self) -> Watching:
        if self.path is not None:
            raise UsageError("This block has been watched already.", "Call watch again.")
        batch = self._prepare()
        parameters = sum(p.numel() for p in self.module.parameters())
        name = (isinstance(self._given, Network) and self._given.name) or type(self.module).__name__
        about = {"model": name, "every": self.every, "parameters": parameters}
        self.path = recordings.create(about, self._folder, batch, _classes(self._labels, batch))
        recordings.write(self.path, self._taken())
        self._events = recordings.opened(self.path)
        self._pool = ThreadPoolExecutor(1, "neuralmine-watch")
        self._open = True
        return self

    def step(self, **metrics: float | Tensor) -> None:
        """One step was taken; its metrics are numbers or tensors of one number.

        Raises UsageError for a metric that is no number, and outside the block.
        """
        if not self._open or self.path is None:
            raise UsageError("step was called outside the block.", "Call it inside `with nm.watch(model) as run:`.")
        values = {name: _number(name, value) for name, value in metrics.items()}
        self.index += 1
        if self._failure:
            return
        self._waiting.append((self.index, values))
        due = self.index % self.every == 0
        # A number on an accelerator is fetched when a record is due: fetching it each step would make the device wait.
        if due or all(isinstance(value, float) for value in values.values()):
            self._try(self._write_metrics)
        if due:
            self._try(self._record)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._open = False
        if self._waiting:
            self._try(self._write_metrics)
        if error is None and self._recorded < self.index:
            self._try(self._record)
        self._try(self._settle)
        if self._pool:
            self._pool.shutdown()
        self._try(self._end, "done" if kind is None else f"{kind.__name__}: {error}")
        if self._events:
            self._events.close()
        if self._failure is None:
            return
        if error is None:
            raise self._failure
        error.add_note(f"The recording stopped early, too: {self._failure}")

    def _prepare(self) -> Tensor | None:
        """The batch to trace, encoded, and a network to trace it with."""
        import torch

        if self._batch is None:
            return None
        if isinstance(self._given, Network):
            self._network = self._given
            batch = self._batch if isinstance(self._batch, torch.Tensor) else self._given.encode(self._batch)
        elif isinstance(self._batch, torch.Tensor):
            batch = self._batch
            layers, untraced = describe(self.module, batch)
            self._network = Network(
                self.module, torch.as_tensor, lambda _: [], (), layers, "vector", tuple(batch.shape[1:]),
                Source(f"the caller's {type(self.module).__name__}"), untraced=untraced,
            )  # fmt: skip
        else:
            raise UsageError(f"trace is a {type(self._batch).__name__}.", "Give a tensor that the model takes.")
        self._batch = _copied(batch)
        return self._batch

    def _taken(self) -> Recorded:
        """Copies of all that is to be recorded, as it is now."""
        import torch

        weights = {name: _copied(t) for name, t in self.module.state_dict().items() if isinstance(t, torch.Tensor)}
        gradients = {
            name: _copied(p.grad) for name, p in self.module.named_parameters() if self.gradients and p.grad is not None
        }
        trace: dict[str, Activation] = {}
        output = None
        if self._network is not None:
            device = next(self.module.parameters()).device
            seen = traced(self._network, self._batch.to(device))
            kept = {name: _copied(activation.value) for name, activation in seen.items()}
            trace = {name: Activation(seen[name].layer, partial(kept.__getitem__, name)) for name in kept}
            output = _copied(seen.output) if isinstance(seen.output, torch.Tensor) else None
        return Recorded(self.index, dict(self._metrics), weights, gradients, trace, output, self._rates())

    def _rates(self) -> dict[str, float]:
        """The rate of every parameter that moves by −rate × gradient and nothing else."""
        import torch

        if type(self._optimizer) is not torch.optim.SGD:
            return {}
        names = {parameter: name for name, parameter in self.module.named_parameters()}
        return {
            names[parameter]: float(group["lr"])
            for group in self._optimizer.param_groups
            if not (group["momentum"] or group["weight_decay"] or group["maximize"])
            for parameter in group["params"]
            if parameter in names
        }

    def _record(self) -> None:
        # One record is on its way at most: none can overtake another, and a kill loses only that one.
        self._settle()
        self._recorded = self.index
        if self._pool and self.path and not self._failure:
            self._writing = self._pool.submit(recordings.write, self.path, self._taken())

    def _settle(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write_metrics(self) -> None:
        waiting, self._waiting = self._waiting, []
        lines = [
            {"index": index, "metrics": {name: float(value) for name, value in values.items()}}
            for index, values in waiting
        ]
        self._metrics = lines[-1]["metrics"]
        if self._events:
            recordings.append(self._events, lines)

    def _end(self, how: str) -> None:
        if self._events:
            recordings.append(self._events, [{"index": self.index, "ended": how}])

    def _try(self, do: Any, *given: Any) -> None:
        """Whatever goes wrong with recording must not stop the training; it is said at the end of the block."""
        if self._failure:
            return
        try:
            do(*given)
        except NeuralmineError as error:
            self._failure = error
        except Exception as error:
            self._failure = StoreError(f"Step {self.index} could not be recorded: {error!r}.", "See the cause.")
            self._failure.__cause__ = error


def _classes(labels: Any, batch: Tensor | None) -> Tensor | None:
    import torch

    if labels is None:
        return None
    given = torch.as_tensor(labels)
    if batch is None or given.shape != batch.shape[:1] or given.dtype.is_floating_point or given.dtype.is_complex:
        wanted = "no batch is traced" if batch is None else f"the traced batch has {len(batch)} inputs"
        raise UsageError(
            f"labels have shape {tuple(given.shape)} and kind {given.dtype}; {wanted}.",
            "Give one whole number, the class, for each traced input.",
        )
    return _copied(given.long())


def _copied(tensor: Tensor) -> Tensor:
    import torch

    dense = tensor.detach().to_dense() if tensor.layout != torch.strided else tensor.detach()
    return dense.to("cpu", copy=True)


def _number(name: str, value: Any) -> Any:
    """A float, or a private copy of a tensor on an accelerator."""
    import torch

    if isinstance(value, torch.Tensor) and value.numel() == 1 and not value.is_complex():
        return value.detach().clone() if value.device.type != "cpu" else float(value.detach())
    try:
        if not isinstance(value, (str, bytes, torch.Tensor)):
            return float(value)
    except (TypeError, ValueError):
        pass
    given = f"shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"
    raise UsageError(f"The metric {name!r} is {given}.", "Give one number, such as a mean.") from None
