"""What lies in a recording's folder is what was put there, also when part of it is torn, missing or of somebody else."""

import io
import json
import math

import numpy as np
import pytest
import torch

from neuralmine.errors import StoreError, UnknownName, UsageError
from neuralmine.stores import recordings
from neuralmine.stores.recordings import Recorded
from neuralmine.types import Activation, Layer


@pytest.fixture
def folder(tmp_path):
    return recordings.create({"model": "Linear", "every": 5}, tmp_path / "run")


def test_every_kind_of_tensor_comes_back_to_the_bit_and_in_order(folder):
    weights = {
        "z": torch.randn(3, 4),
        "a.half": torch.randn(5).bfloat16(),
        "m": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "count": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "odd": torch.tensor([math.nan, math.inf, -0.0], dtype=torch.float64),
    }
    layer = Layer("conv", "Conv2d", "b c h w", (1, 2), 12)
    shown = torch.randn(1, 2)
    trace = {"conv": Activation(layer, lambda: shown)}
    recordings.write(folder, Recorded(5, {"loss": math.nan}, weights, {"z": -weights["z"]}, trace, shown + 1))
    read = recordings.Recording(folder).at(5)
    assert list(read.weights) == list(weights)
    for name, tensor in weights.items():
        assert read.weights[name].dtype == tensor.dtype
        assert read.weights[name].shape == tensor.shape
        assert torch.equal(
            read.weights[name].contiguous().reshape(-1).view(torch.uint8),
            tensor.contiguous().reshape(-1).view(torch.uint8),
        )
    assert list(read.gradients) == ["z"]
    assert torch.equal(read.gradients["z"], -weights["z"])
    assert read.trace["conv"].layer == layer
    assert torch.equal(read.trace["conv"].value, shown)
    assert torch.equal(read.output, shown + 1)
    assert math.isnan(read.metrics["loss"])


def test_steps_come_in_order_of_their_number(folder):
    for step in (1_000_000_000, 5, 20, 100):
        recordings.write(folder, Recorded(step, {}, {"w": torch.tensor(float(step))}, {}))
    (folder / "records" / ".000000200.safetensors.x1").write_text("torn")  # what a kill leaves
    recording = recordings.load_recording(folder)
    assert recording.steps == [5, 20, 100, 1_000_000_000]
    assert [float(recording.at(step).weights["w"]) for step in recording.steps] == recording.steps
    with pytest.raises(UnknownName, match="5, 20, 100"):
        recording.at(7)


def test_a_torn_last_line_is_dropped(folder):
    with recordings.opened(folder) as file:
        recordings.append(file, [{"index": 1, "metrics": {"loss": 2.0}}, {"index": 2, "metrics": {"acc": 1.0}}])
    with (folder / "events.jsonl").open("ab") as file:
        file.write('{"index": 3, "metrics": {"loss": 1.0, "né'.encode()[:-1])
    recording = recordings.load_recording(folder)
    assert recording.ended == ""
    steps, values = recording.metrics["loss"]
    np.testing.assert_array_equal(steps, [1])
    np.testing.assert_array_equal(values, [2.0])


def test_what_is_there_is_never_written_over(folder, tmp_path):
    with pytest.raises(StoreError, match="holds something already"):
        recordings.create({}, folder)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreError):
        recordings.create({}, tmp_path / "file")
    assert json.loads((folder / "run.json").read_text())["every"] == 5


def test_recordings_are_found_by_name_and_listed_newest_first(monkeypatch):
    assert recordings.listed() == []
    times = iter(["20260101-000000-", "20260202-000000-"])
    monkeypatch.setattr(recordings.time, "strftime", lambda _: next(times))
    first, second = recordings.create({"model": "A"}), recordings.create({"model": "B"})
    assert [recording.path for recording in recordings.listed()] == [second, first]
    assert recordings.load_recording(first.name).about["model"] == "A"


def test_a_broken_record_and_no_recording_are_said(folder, tmp_path):
    (folder / "records").mkdir()
    (folder / "records" / "000000005.safetensors").write_bytes(b"\x08\0\0\0")
    with pytest.raises(StoreError, match="cannot be read"):
        recordings.Recording(folder).at(5)
    with pytest.raises(StoreError, match="holds no recording"):
        recordings.load_recording(tmp_path)
    (folder / "run.json").write_text("{")
    with pytest.raises(StoreError, match="holds no recording"):
        recordings.load_recording(folder)


def test_weights_go_only_into_a_model_they_fit(folder):
    model = torch.nn.Linear(3, 2)
    recordings.write(folder, Recorded(0, {}, model.state_dict(), {}))
    recording = recordings.Recording(folder)
    other = torch.nn.Linear(3, 2)
    assert torch.equal(recording.network_at(0, other).weight, model.weight)
    with pytest.raises(UsageError, match="do not fit"):
        recording.network_at(0, torch.nn.Linear(4, 2))
    with pytest.raises(UsageError, match="built as the recorded Linear"):
        recording.network_at(0, torch.nn.Sequential(torch.nn.Linear(3, 2)))


def test_a_disk_that_takes_only_a_part_is_full(folder):
    class Nearly(io.FileIO):
        def write(self, data):
            return super().write(data[:7])

    with Nearly(folder / "events.jsonl", "ab") as file, pytest.raises(StoreError, match="No space left"):
        recordings.append(file, [{"index": 1, "metrics": {}}])
    assert recordings.load_recording(folder).events == []
