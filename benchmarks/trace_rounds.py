"""What the trace benchmarks share: interleaved rounds, peers, memory in a fresh child, one line of JSON."""

from __future__ import annotations

import argparse
import copy
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

Variant = Callable[[], Any]


def network_of(module: nn.Module, x: torch.Tensor) -> Any:
    from neuralmine.tracing import describe
    from neuralmine.types import Network, Source

    layers, untraced = describe(module, x[:1])
    return Network(
        module, torch.as_tensor, lambda _: [], (), layers, "", tuple(x.shape[1:]), Source("random"), untraced=untraced
    )


# ── Baselines and peers ──


def _hooked(module: nn.Module, x: torch.Tensor, keep: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def hook(name: str) -> Callable[..., None]:
        def save(part: nn.Module, args: Any, output: Any) -> None:
            for tensor in output if isinstance(output, tuple) else (output,):
                found.setdefault(name, []).append(keep(tensor))

        return save

    handles = [part.register_forward_hook(hook(name)) for name, part in module.named_modules() if name]
    try:
        with torch.no_grad():
            module(x)
    finally:
        for handle in handles:
            handle.remove()
    return found


def by_reference(module: nn.Module, x: torch.Tensor) -> dict[str, Any]:
    """The usual recipe. Wrong after in-place operations."""
    return _hooked(module, x, lambda tensor: tensor)


def by_copy(module: nn.Module, x: torch.Tensor) -> dict[str, Any]:
    return _hooked(module, x, torch.clone)


def nnsight_of(module: nn.Module, x: torch.Tensor) -> dict[str, Variant]:
    """Every module's output saved, by its own means. Nothing when it is not installed."""
    if not find_spec("nnsight"):
        return {}
    from nnsight import NNsight

    module = copy.deepcopy(module)  # it replaces every module's forward, and leaves hooks
    model = NNsight(module)
    order: list[str] = []
    handles = [
        part.register_forward_hook(lambda *_, name=name: order.append(name))
        for name, part in module.named_modules()
        if name
    ]
    with torch.no_grad():
        module(x[:1])
    for handle in handles:
        handle.remove()
    names = list(dict.fromkeys(order))  # it wants execution order; a module's first call is enough here

    def run() -> Any:
        saved = []
        with torch.no_grad(), model.trace(x):
            for name in names:
                saved.append(model.get(name).output.save())
        return saved

    return {"nnsight": run}


def torchlens_of(module: nn.Module, x: torch.Tensor) -> dict[str, Variant]:
    if not find_spec("torchlens"):
        return {}
    import torchlens

    module = copy.deepcopy(module)

    def run() -> Any:
        with torch.no_grad():
            return torchlens.trace(module, x)

    return {"torchlens": run}


# ── Measuring ──


def wrong_after_in_place(network: Any, x: torch.Tensor) -> dict[str, int]:
    """How many values ours and hooks by reference get wrong, against copies made at once."""
    import neuralmine as nm

    def flat(found: Mapping[str, list[torch.Tensor]]) -> dict[str, torch.Tensor]:
        return {f"{name}#{k}" if k else name: t for name, ts in found.items() for k, t in enumerate(ts)}

    right = flat(by_copy(network.module, x))
    kept = flat(by_reference(network.module, x))
    ours = nm.trace(network, x)
    return {
        "values": len(right),
        "by reference wrong": sum(not torch.equal(kept[name], value) for name, value in right.items()),
        "ours wrong": sum(not torch.equal(ours[name].value, value) for name, value in right.items()),
    }


def peak_mb(variant: Variant) -> float:
    """How far one run pushes up this process's memory while its result is held. For a process that did little else."""
    gc.collect()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the high-water mark starts again from here
    before = _status("VmRSS:")
    with torch.no_grad():
        held = variant()
    peak = _status("VmHWM:")
    del held
    return round((peak - before) / 2**20, 1)


def _peak_in_child(name: str) -> float:
    """The same in a fresh process: this script again, for one variant. What is freed goes back at once, for all."""
    command = [sys.executable, sys.argv[0], "--memory", name]
    done = subprocess.run(
        command, env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return float(done.stdout.strip().splitlines()[-1])


def _status(field: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="a small version, to see that it runs")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="run this variant alone, beside the floor")
    parser.add_argument("--memory", default="", help="print the peak memory of this variant alone, in MB")
    found = parser.parse_args()
    if found.quick:
        found.rounds = 1
    torch.set_num_threads(2)
    torch.manual_seed(0)
    return found


def compare(
    work: str,
    given: argparse.Namespace,
    variants: Mapping[str, Variant],
    targets: Mapping[str, tuple[str, float]],
    slow: Mapping[str, Variant] | None = None,
    check: Callable[[], Mapping[str, Any]] = dict,
) -> None:
    """Run all in turn, round after round, and print one line of JSON. What is `slow` runs in the first rounds only."""
    slow = slow or {}
    everything = {**variants, **slow}
    if given.memory:
        print(peak_mb(everything[given.memory]))
        return
    if given.only:
        bases = {base for base, _ in targets.values()}
        everything = {name: variant for name, variant in everything.items() if name in {"floor", given.only, *bases}}
    times: dict[str, list[float]] = {name: [] for name in everything}
    memory: dict[str, float] = {}
    failed: dict[str, str] = {}
    for turn in range(given.rounds + 1):
        for name, variant in everything.items():
            if name in failed or (name in slow and turn > 2):
                continue
            try:
                if not turn:
                    memory[name] = peak_mb(variant) if given.quick else _peak_in_child(name)
                times[name].append(_seconds(variant))
            except Exception as error:  # a peer that does not run here is named, not hidden
                failed[name] = f"{type(error).__name__}: {error}"[:200]
    measured = {name: found[1:] for name, found in times.items() if len(found) > 1}  # the first round warms up
    # Each round's own ratio: the machine is shared, and what slows a round slows all of it.
    ratios = {
        name: round(statistics.median(a / b for a, b in zip(found, measured["floor"], strict=False)), 3)
        for name, found in measured.items()
    }
    result: dict[str, Any] = {
        "work": work,
        "median_s": {name: round(statistics.median(found), 4) for name, found in measured.items()},
        "ratio_to_floor": ratios,
        "peak_mb": memory,
        **check(),
    }
    for what, (base, limit) in targets.items():
        found = ratios["ours"] / ratios[base] if what == "time" else memory["ours"] / max(memory[base], 0.1)
        result[f"target_{what}"] = {
            "of": base,
            "limit": limit,
            "measured": round(found, 3),
            "met": None if given.quick else found <= limit,
        }
    if failed:
        result["failed"] = failed
    result["rounds"], result["quick"] = given.rounds, given.quick
    print(json.dumps(result))


def _seconds(variant: Variant) -> float:
    gc.collect()
    start = time.perf_counter()
    with torch.no_grad():
        held = variant()
    seconds = time.perf_counter() - start
    del held
    return seconds
