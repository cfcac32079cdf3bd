"""What `nm.watch(model, every=50)` costs a small CNN's training loop: watched, and the same loop alone, in turn.

The floor is the loop alone. Target: ≤ 1.03 of its time. Peers: a `torch.save` of weights and gradients every 50 steps,
in the loop; and a record in zarr (when it is installed), one array a tensor, appended. `--quick` runs a small version.
Both loops train the same model at the same moment, 50 steps each in turn, so that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

import neuralmine as nm

EVERY = 50
BATCH = 64


def cnn() -> nn.Sequential:
    """A small CNN of 0.1 million weights for 28 × 28 pixels."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * 49, 64), nn.ReLU(), nn.Linear(64, 10)),
    )


class Loop:
    """Anybody's training loop, `EVERY` steps at a time, calling `after(step, loss)` after each."""

    def __init__(self, after: Callable[[nn.Module, int, torch.Tensor], None] | None = None) -> None:
        self.model, self.after, self.taken = cnn(), after, 0
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(16, BATCH, 1, 28, 28, generator=generator)
        self.y = torch.randint(10, (16, BATCH), generator=generator)

    def go(self, steps: int) -> tuple[float, float]:
        """Seconds by the wall clock, and of all cores together."""
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(steps):
            x, y = self.x[self.taken % 16], self.y[self.taken % 16]
            self.optimizer.zero_grad()
            loss = nn.functional.cross_entropy(self.model(x), y)
            loss.backward()
            self.optimizer.step()
            self.taken += 1
            if self.after:
                self.after(self.model, self.taken, loss)
        return time.perf_counter() - wall, time.process_time() - cpu


def saver(folder: Path) -> Callable[[nn.Module, int, torch.Tensor], None]:
    """The usual recipe."""

    def save(model: nn.Module, index: int, loss: torch.Tensor) -> None:
        if index % EVERY == 0:
            gradients = {name: p.grad for name, p in model.named_parameters()}
            torch.save({"weights": model.state_dict(), "gradients": gradients}, folder / f"{index}.pt")

    return save


def zarr_appender(folder: Path) -> Callable[[nn.Module, int, torch.Tensor], None]:
    import zarr

    group = zarr.open_group(folder, mode="w")

    def append(model: nn.Module, index: int, loss: torch.Tensor) -> None:
        if index % EVERY:
            return
        tensors = {f"weights/{name}": t for name, t in model.state_dict().items()}
        tensors |= {f"gradients/{name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
        for name, tensor in tensors.items():
            value = tensor.numpy()[None]
            if name not in group:
                shape = value.shape[1:]
                group.create_array(name, shape=(0, *shape), chunks=(1, *shape), dtype=value.dtype)
            group[name].append(value)

    return append


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rounds = 3 if given.quick else given.rounds
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        spent = [0.0]
        runs: dict[str, Any] = {}

        def step(name: str) -> Callable[[nn.Module, int, torch.Tensor], None]:
            def tell(model: nn.Module, index: int, loss: torch.Tensor) -> None:
                begun = time.perf_counter()
                runs[name].step(loss=loss)
                spent[0] += (time.perf_counter() - begun) * (name == "ours")

            return tell

        (folder / "saved").mkdir()
        loops = {
            "floor": Loop(),
            "ours": Loop(step("ours")),
            "ours, with a trace": Loop(step("ours, with a trace")),
            "torch.save": Loop(saver(folder / "saved")),
        }
        if find_spec("zarr"):
            loops["zarr"] = Loop(zarr_appender(folder / "zarr"))
        runs["ours"] = nm.watch(loops["ours"].model, EVERY, folder=folder / "run")
        batch = copy.deepcopy(loops["floor"].x[0, :16])
        runs["ours, with a trace"] = nm.watch(
            loops["ours, with a trace"].model, EVERY, trace=batch, folder=folder / "traced"
        )
        with runs["ours"], runs["ours, with a trace"]:
            names = list(loops)
            for name in names:
                loops[name].go(EVERY)  # to warm up
            spent[0] = 0.0
            times: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
            for turn in range(rounds):
                for name in names[turn % len(names) :] + names[: turn % len(names)]:
                    times[name].append(loops[name].go(EVERY))
        ours = loops["ours"].model.state_dict()
        last = nm.load_recording(folder / "run").at(EVERY * (rounds + 1)).weights
        right = all(torch.equal(ours[name], last[name]) for name in ours)
        right &= all(torch.equal(t, ours[name]) for name, t in loops["floor"].model.state_dict().items())
        size = sum(file.stat().st_size for file in (folder / "run" / "records").iterdir()) / (rounds + 2)
    wall = {name: statistics.median(t for t, _ in taken) for name, taken in times.items()}
    ratio = {
        name: statistics.median(t / alone for (t, _), (alone, _) in zip(taken, times["floor"], strict=True))
        for name, taken in times.items()
    }
    cpu = {name: sum(c for _, c in taken) for name, taken in times.items()}
    print(
        json.dumps(
            {
                "what": f"nm.watch every {EVERY} steps around a small CNN's loop, batch {BATCH}",
                "threads": given.threads,
                "rounds": rounds,
                "median_s_per_50_steps": {name: round(t, 4) for name, t in wall.items()},
                "ratio_to_floor": {name: round(r, 4) for name, r in ratio.items()},
                "ratio_of_cpu_time": {name: round(c / cpu["floor"], 4) for name, c in cpu.items()},
                "share_spent_in_step": round(spent[0] / sum(t for t, _ in times["ours"]), 4),
                "record_mb": round(size / 1e6, 3),
                "target": 1.03,
                "holds": ratio["ours"] <= 1.03,
                "right": right,
            }
        )
    )


if __name__ == "__main__":
    main()
