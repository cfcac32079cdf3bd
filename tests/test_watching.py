"""A watched loop trains as an unwatched one does, and what was recorded is what was there."""

import copy
import errno
import json
import math
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from torch import nn

import neuralmine as nm
from neuralmine.errors import NetworkError, StoreError, UsageError
from neuralmine.stores import recordings


def small():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(4 * 36, 3)
    )


def loop(model, steps, run=None, optimizers=None, after=None):
    """Train on noise; returns the losses."""
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(2)  # for the dropout
    optimizers = optimizers or [torch.optim.Adam(model.parameters(), lr=0.01)]
    losses = []
    for index in range(1, steps + 1):
        x, y = torch.randn(8, 1, 8, 8, generator=generator), torch.randint(3, (8,), generator=generator)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss.item())
        if run:
            run.step(loss=loss, twice=2 * loss.item())
        if after:
            after(index)
    return losses


def test_training_is_not_changed_by_a_bit_and_records_are_equal_to_own_copies(tmp_path):
    batch = torch.randn(5, 1, 8, 8)
    plain = small()
    own = {0: (copy.deepcopy(plain.state_dict()), {})}

    def keep(index):
        gradients = {name: p.grad.clone() for name, p in plain.named_parameters()}
        own[index] = (copy.deepcopy(plain.state_dict()), gradients)

    losses = loop(plain, 23, after=keep)
    model = small()
    with nm.watch(model, every=5, trace=batch, folder=tmp_path / "run") as run:
        assert loop(model, 23, run) == losses
    recording = nm.load_recording(tmp_path / "run")
    assert recording.steps == [0, 5, 10, 15, 20, 23]
    assert recording.ended == "done"
    for step in recording.steps:
        taken = recording.at(step)
        weights, gradients = own[step]
        for mine, theirs in ((weights, taken.weights), (gradients, taken.gradients)):
            assert list(mine) == list(theirs)
            assert all(torch.equal(mine[name], theirs[name]) for name in mine)
        assert taken.metrics == ({"loss": losses[step - 1], "twice": 2 * losses[step - 1]} if step else {})
        # The trace is what the recorded weights make of the batch.
        again = recording.network_at(step, small()).eval()
        with torch.no_grad():
            assert torch.equal(again(batch), taken.output)
            assert torch.equal(again[0](batch), taken.trace["0"].value)
        assert list(taken.trace) == ["0", "1", "2", "3", "4", "5"]
        assert taken.trace["0"].dims == "b c h w"
    steps, values = recording.metrics["loss"]
    np.testing.assert_array_equal(steps, range(1, 24))
    np.testing.assert_array_equal(values, losses)
    assert torch.equal(recording.input, batch)


def test_no_hook_and_no_flag_is_left_behind():
    def hooks(model):
        return [
            len(value)
            for part in model.modules()
            for key, value in vars(part).items()
            if "hooks" in key and hasattr(value, "__len__")
        ]

    model = small()
    before = hooks(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with nm.watch(model, every=2, trace=torch.zeros(1, 1, 8, 8)) as run:
        loop(model, 4, run, [optimizer])
        assert model.training
        assert hooks(model) == before
    assert hooks(model) == before
    assert not optimizer._optimizer_step_post_hooks
    assert not optimizer._optimizer_step_pre_hooks
    assert recordings.listed()[0].path == run.path


def test_two_optimizers_make_one_step(tmp_path):
    model = small()
    halves = [torch.optim.SGD(model[0].parameters(), lr=0.1), torch.optim.Adam(model[5].parameters(), lr=0.01)]
    with nm.watch(model, every=3, folder=tmp_path / "run") as run:
        loop(model, 6, run, halves)
    recording = nm.load_recording(tmp_path / "run")
    assert recording.steps == [0, 3, 6]
    assert all(torch.equal(tensor, recording.at(6).weights[name]) for name, tensor in model.state_dict().items())


def test_a_network_takes_raw_inputs(net, digits, tmp_path):
    with nm.watch(net, every=1, trace=digits.images[:3], folder=tmp_path / "run"):
        pass
    taken = nm.load_recording(tmp_path / "run").at(0)
    np.testing.assert_array_equal(taken.trace["hidden1"].numpy(), nm.trace(net, digits.images[:3])["hidden1"].numpy())


def test_a_loss_that_is_no_number_is_recorded_as_such(tmp_path):
    model = nn.Linear(2, 1)
    with nm.watch(model, every=2, trace=torch.ones(1, 2), folder=tmp_path / "run") as run:
        for loss in (1.0, torch.tensor(math.nan), np.float32(math.inf)):
            with torch.no_grad():
                model.weight.fill_(float(loss))
            run.step(loss=loss)
    recording = nm.load_recording(tmp_path / "run")
    np.testing.assert_array_equal(recording.metrics["loss"][1], [1.0, math.nan, math.inf])
    assert math.isnan(recording.at(2).metrics["loss"])
    assert bool(recording.at(2).weights["weight"].isnan().all())
    assert bool(recording.at(2).output.isnan().all())


def test_gradients_that_are_sparse_missing_or_unwanted(tmp_path):
    model = nn.ModuleDict({"words": nn.Embedding(5, 2, sparse=True), "unused": nn.Linear(1, 1)})
    with nm.watch(model, every=1, folder=tmp_path / "run") as run:
        model["words"](torch.tensor([1, 1])).sum().backward()
        run.step()
    gradients = nm.load_recording(tmp_path / "run").at(1).gradients
    assert list(gradients) == ["words.weight"]
    assert gradients["words.weight"].tolist() == [[0, 0], [2, 2], [0, 0], [0, 0], [0, 0]]
    with nm.watch(model, every=1, gradients=False, folder=tmp_path / "none") as run:
        run.step()
    assert not nm.load_recording(tmp_path / "none").at(1).gradients


def test_what_cannot_be_watched_is_said_before_training(tmp_path):
    with pytest.raises(UsageError, match="no parameters"):
        nm.watch(nn.ReLU())
    with pytest.raises(UsageError, match="lazy"):
        nm.watch(nn.LazyLinear(3))
    with pytest.raises(UsageError, match="was given a str"):
        nm.watch("model")
    for every in (0, -1, 2.5, True):
        with pytest.raises(UsageError, match="every"):
            nm.watch(small(), every=every)
    with pytest.raises(NetworkError), nm.watch(small(), trace=torch.zeros(1, 7)):
        pass
    with pytest.raises(UsageError, match="trace is a list"), nm.watch(small(), trace=[1.0]):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError), nm.watch(small(), folder=tmp_path / "file" / "run"):
        pass
    assert not (tmp_path / "home").exists()


def test_metrics_are_single_numbers_and_steps_lie_inside_the_block(tmp_path):
    watching = nm.watch(nn.Linear(1, 1), folder=tmp_path / "run")
    with pytest.raises(UsageError, match="outside"):
        watching.step()
    with watching as run:
        for wrong in (torch.zeros(2), "0.5", None, torch.tensor(1j)):
            with pytest.raises(UsageError, match="'loss'"):
                run.step(loss=wrong)
        assert run.index == 0
    with pytest.raises(UsageError, match="outside"):
        run.step()
    with pytest.raises(UsageError, match="already"), run:
        pass


def breaks(folder, before=id):
    with nm.watch(nn.Linear(1, 1), every=2, folder=folder) as run:
        for _ in range(2):
            run.step()
        before(run)
        run.step()
        raise ZeroDivisionError("of the loop")


def fill(run):
    run._events.close()
    run._events = open("/dev/full", "ab", buffering=0)  # noqa: SIM115


def no_space(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_an_error_in_the_loop_ends_the_recording_with_its_name(tmp_path):
    with pytest.raises(ZeroDivisionError):
        breaks(tmp_path / "run")
    recording = nm.load_recording(tmp_path / "run")
    assert recording.steps == [0, 2]
    assert recording.ended == "ZeroDivisionError: of the loop"


def test_a_full_disk_does_not_hide_the_error_of_the_loop(tmp_path):
    with pytest.raises(ZeroDivisionError) as caught:
        breaks(tmp_path / "run", fill)
    assert "No space left" in caught.value.__notes__[0]


@pytest.mark.parametrize("full", ["records", "events"])
def test_a_full_disk_does_not_stop_the_training(tmp_path, monkeypatch, full):
    folder, losses = tmp_path / "run", []

    def trains():
        with nm.watch(small(), every=2, folder=folder) as run:
            loop(run.module, 4, run)
            run._settle()
            if full == "records":
                monkeypatch.setattr(os, "fsync", no_space)
            else:
                fill(run)
            losses.extend(loop(run.module, 7, run))

    with pytest.raises(StoreError, match="No space left"):
        trains()
    assert len(losses) == 7
    monkeypatch.undo()
    recording = nm.load_recording(folder)
    assert recording.steps == [0, 2, 4]
    assert all(recording.at(step).index == step for step in recording.steps)
    assert recording.ended == ""


LOOP = """
import sys, torch, neuralmine as nm
model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10))
with nm.watch(model, every=3, trace=torch.ones(4, 64), folder=sys.argv[1]) as run:
    for index in range(1, 1_000_000):
        with torch.no_grad():
            for p in model.parameters():
                p.fill_(index)
                p.grad = torch.full_like(p, -index)
        run.step(loss=index / 2)
        sys.stdout.write(f"{index}\\n")
        sys.stdout.flush()
"""


def test_killed_at_random_moments_only_the_unfinished_step_is_lost(tmp_path):
    dice = random.Random(0)
    for turn in range(4):
        folder = tmp_path / str(turn)
        with subprocess.Popen([sys.executable, "-c", LOOP, folder], stdout=subprocess.PIPE, text=True) as process:
            first = process.stdout.readline()
            stop = time.monotonic() + 0.05 + 0.6 * dice.random()
            said = [first]
            while time.monotonic() < stop:
                said.append(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            said += process.stdout.read().splitlines()
        taken = int([line for line in said if line.strip()][-1])
        recording = nm.load_recording(folder)
        steps, losses = recording.metrics["loss"]
        np.testing.assert_array_equal(steps, range(1, len(steps) + 1))
        np.testing.assert_array_equal(losses, steps / 2)
        assert len(steps) >= taken  # every step that returned has its metrics
        # Every record up to the last but one that was due is there, and whole.
        assert recording.steps == list(range(0, recording.steps[-1] + 1, 3))
        assert recording.steps[-1] >= taken // 3 * 3 - 3
        assert recording.ended == ""
        for step in recording.steps[1:]:
            read = recording.at(step)
            assert read.metrics == {"loss": step / 2}
            assert all(bool((tensor == step).all()) for tensor in read.weights.values())
            assert all(bool((tensor == -step).all()) for tensor in read.gradients.values())
            assert float(read.trace["0"].value[0, 0]) == 65 * step
        assert json.loads((folder / "run.json").read_text())["every"] == 3


def test_labels_and_the_rates_of_plain_sgd_are_kept(tmp_path):
    model, batch = nn.ModuleList([nn.Linear(2, 3), nn.Linear(2, 3)]), torch.ones(4, 2)
    two = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3))
    groups = [{"params": two[0].parameters()}, {"params": two[1].parameters(), "momentum": 0.9}]
    optimizer = torch.optim.SGD(groups, lr=0.5)
    with nm.watch(two, every=1, trace=batch, labels=[0, 1, 2, 0], optimizer=optimizer, folder=tmp_path / "r") as run:
        run.step()
        optimizer.param_groups[0]["lr"] = 0.25
        run.step()
    recording = nm.load_recording(tmp_path / "r")
    assert recording.labels.tolist() == [0, 1, 2, 0]
    assert recording.at(1).rates == {"0.weight": 0.5, "0.bias": 0.5}  # momentum moves the others
    assert recording.rates(2) == recording.at(2).rates == {"0.weight": 0.25, "0.bias": 0.25}
    assert not recording.live
    for labels in ([0, 1], [0.5] * 4):
        with pytest.raises(UsageError, match="labels"), nm.watch(two, trace=batch, labels=labels):
            pass
    with pytest.raises(UsageError, match="no batch"), nm.watch(model, labels=[0]):
        pass
