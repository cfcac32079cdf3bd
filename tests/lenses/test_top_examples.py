"""Top examples against brute force, ties, killed and resumed to the bit, and memory that does not grow."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

import neuralmine as nm
from neuralmine.datasets.stream import stream
from neuralmine.errors import DataError, NetworkError, StoreError, UnknownName, UsageError
from neuralmine.lenses.top_examples import strongest
from neuralmine.tracing import trace

nn = torch.nn


def network(seed=0):
    torch.manual_seed(seed)
    module = nn.Sequential(
        nn.Conv2d(3, 7, 3, 2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(7, 5, 3, padding=1),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 2),
    )
    return nm.load(module, shape=(3, 18, 20))


def pictures(count=45, seed=1):
    images = np.random.default_rng(seed).uniform(0, 1, (count, 18, 20, 3)).astype(np.float32)
    return nm.Dataset("noise", images, np.arange(count) % 3, ("a", "b", "c"))


def brute_force(net, data, layer, count, batch):
    """Every map of every image, sorted whole."""
    maps = np.concatenate(
        [trace(net, data.images[i : i + batch])[layer].numpy() for i in range(0, len(data), batch)]
    ).astype(np.float64)
    flat = maps.reshape(*maps.shape[:2], -1)
    best = flat.max(2)
    order = np.argsort(-best, axis=0, kind="stable")[:count].T
    units = np.arange(maps.shape[1])[:, None]
    place = flat.argmax(2)[order, units]
    return {"value": best[order, units], "image": order, "row": place // maps.shape[3], "column": place % maps.shape[3]}


def of_layer(finding, name):
    mine = finding.numbers["layer"] == finding.provenance["layers"].index(name)
    return {key: value[mine] for key, value in finding.numbers.items()}


def assert_brute_force(finding, net, data, count, batch):
    for name in finding.provenance["layers"]:
        found = of_layer(finding, name)
        for key, value in brute_force(net, data, name, count, batch).items():
            assert np.array_equal(found[key], value), (name, key)


@pytest.mark.parametrize(("count", "batch"), [(9, 32), (1, 1), (4, 7), (9, 4), (45, 10), (100, 64)])
def test_every_unit_equals_brute_force(count, batch):
    net, data = network(), pictures()
    finding = nm.look("top_examples", net, data, count=count, batch=batch)
    assert finding.provenance["layers"] == ["0", "1", "3", "4", "5"]
    assert finding.numbers["value"].shape == (7 + 7 + 5 + 5 + 5, min(count, 45))
    assert_brute_force(finding, net, data, count, batch)


def test_ties_go_to_the_lower_image_and_the_first_place():
    data = pictures(40)
    data = nm.Dataset("twins", np.round(data.images[np.arange(40) % 6]), data.labels, data.classes)
    module = nn.Sequential(nn.Conv2d(3, 4, 2, bias=False), nn.ReLU())
    with torch.no_grad():
        module[0].weight.copy_(torch.round(module[0].weight * 8))
    net = nm.load(module, shape=(3, 18, 20))
    finding = nm.look("top_examples", net, data, batch=8)
    assert_brute_force(finding, net, data, 9, 8)
    assert any(len(np.unique(value)) < 9 for value in finding.numbers["value"])


def test_large_maps_too():
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2))
    images = np.round(np.random.default_rng(6).uniform(0, 1, (20, 40, 40)) * 2) / 2
    data = nm.Dataset("large", images, np.zeros(20, dtype=int), ("one",))
    net = nm.load(module, shape=(1, 40, 40))
    assert_brute_force(nm.look("top_examples", net, data, batch=6), net, data, 9, 6)


class Written(nn.Module):
    """What the ReLU is given is a convolution's own tensor, but written to since; and the ReLU is used twice."""

    def __init__(self, inplace):
        super().__init__()
        self.a, self.b, self.relu = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.ReLU(inplace=inplace)

    def forward(self, x):
        x = self.a(x)
        x += 0.5
        y = self.b(self.relu(x).clone())
        return self.relu(y)


@pytest.mark.parametrize("inplace", [False, True])
def test_a_relu_of_what_was_written_to_is_read_itself(inplace):
    torch.manual_seed(3)
    net, data = nm.load(Written(inplace), shape=(3, 18, 20)), pictures(20)
    finding = nm.look("top_examples", net, data, batch=6)
    assert finding.provenance["layers"] == ["a", "relu", "b", "relu#1"]
    assert_brute_force(finding, net, data, 9, 6)
    handle = net.module.relu.register_forward_hook(lambda _, __, output: output * -1 + 3)
    hooked = nm.look("top_examples", net, data, batch=6)
    assert_brute_force(hooked, net, data, 9, 6)
    handle.remove()


def test_silent_maps_are_said_and_have_the_value_0():
    net = network()
    with torch.no_grad():
        net.module[0].bias[2] = -100.0
    finding = nm.look("top_examples", net, pictures(), layers="1")
    assert finding.numbers["value"][2].tolist() == [0] * 9
    assert finding.numbers["image"][2].tolist() == list(range(9))
    assert "1 is silent:" in finding.summary
    assert finding.views[-1].rows[0][2] == 1


def test_every_map_silent_is_no_error():
    net = network()
    with torch.no_grad():
        net.module[0].bias[:] = -100.0
    finding = nm.look("top_examples", net, pictures(), layers="1")
    assert "7 are silent" in finding.summary
    assert [check.name for check in finding.checks] == ["nothing outside the patch matters"]


def test_the_patch_is_all_that_matters_and_is_cut_from_the_picture():
    net, data = network(), pictures()
    finding = nm.look("top_examples", net, data, layers="3")
    found = of_layer(finding, "3")
    assert finding.provenance["fields"]["3"] == {"size": (13, 13), "stride": (4, 4), "offset": (-4, -4)}
    assert np.array_equal(found["box"][..., 0], np.maximum(0, found["row"] * 4 - 4))
    assert np.array_equal(
        found["box"][..., 3], np.minimum(17, found["column"] * 4 + 9)
    )  # the pooling leaves the last columns out
    check = finding.checks[-1]
    assert check.passed
    assert check.measured < 1e-5
    sheet = finding.views[0]
    best = int(found["value"][:, 0].argmax())
    top, left, bottom, right = found["box"][best, 0]
    assert (bottom - top, right - left) <= sheet.pixels.shape[1:3]
    if (bottom - top, right - left) == sheet.pixels.shape[1:3]:
        assert np.array_equal(sheet.pixels[0], data.images[found["image"][best, 0], top:bottom, left:right])


def test_purity_is_high_for_a_colour_and_chance_for_noise():
    data = pictures(60)
    data.images[data.labels == 1, 4:14, 4:14, 0] += 1
    data = nm.Dataset("red", data.images / 2, data.labels, data.classes)
    module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())
    with torch.no_grad():
        module[0].weight.zero_()
        module[0].weight[:, 0] = 1
    finding = nm.look("top_examples", nm.load(module, shape=(3, 18, 20)), data)
    assert (finding.numbers["purity"] == 1).all()
    assert finding.checks[0].passed
    noise = nm.look("top_examples", network(), pictures(90))
    assert noise.checks[0].measured < 0.7
    assert 1 / 3 < noise.checks[0].null < 0.7
    one = nm.Dataset("one", data.images, np.zeros(60, dtype=int), ("a",))
    assert "purity" not in nm.look("top_examples", network(), one).numbers


def test_what_cannot_be_done_is_said():
    net, data = network(), pictures()
    with pytest.raises(UnknownName):
        nm.look("top_examples", net, data, layers="0, 33")
    with pytest.raises(UsageError, match="'8' has 'b d'"):
        nm.look("top_examples", net, data, layers="0,8")
    with pytest.raises(NetworkError, match="No layer"):
        nm.look("top_examples", nm.load("digits"), nm.datasets.load("digits"))
    with torch.no_grad():
        net.module[3].weight[2] = float("inf")
    with pytest.raises(NetworkError, match="Map 2 of '3' is not finite for image 0"):
        nm.look("top_examples", net, data)


def test_no_layer_is_held_longer_than_the_network_does():
    """An early layer that a later one overwrites is read before that, and each picture runs through once."""
    net, data = network(), pictures()
    ran = []
    handle = net.module[0].register_forward_hook(lambda _, given, __: ran.append(len(given[0])))
    list(strongest(net, data, batch=10))
    handle.remove()
    assert ran == [10, 10, 10, 10, 5]


# ── Stopped and gone on ──


def test_a_second_call_goes_on(tmp_path):
    net, data = network(), pictures()
    whole = nm.look("top_examples", net, data, batch=4)
    walk = strongest(net, data, batch=4, keep=str(tmp_path), every=2)
    for _ in range(5):
        next(walk)
    walk.close()
    again = strongest(net, data, batch=4, keep=str(tmp_path))
    assert next(again) == (16, 45)
    again.close()
    seen = nm.look("top_examples", net, data, batch=4, keep=str(tmp_path))
    for key, value in whole.numbers.items():
        assert np.array_equal(value, seen.numbers[key]), key
    assert list(strongest(net, data, batch=4, keep=str(tmp_path))) == [(45, 45)]


def test_other_work_is_refused(tmp_path):
    net, data = network(), pictures()
    keep = str(tmp_path)
    nm.look("top_examples", net, data, keep=keep)
    with pytest.raises(StoreError, match="differs in count: there 9, now 5"):
        nm.look("top_examples", net, data, keep=keep, count=5)
    with pytest.raises(StoreError, match="differs in weights"):
        nm.look("top_examples", network(2), data, keep=keep)
    with pytest.raises(StoreError, match=r"differs in data: .*; the first picture as the network reads it: "):
        nm.look("top_examples", net, pictures(seed=2), keep=keep)
    with pytest.raises(StoreError, match="differs in layers"):
        nm.look("top_examples", net, data, keep=keep, layers="1")
    other = nm.load(net.module, shape=(3, 18, 20), mean=0.5)
    with pytest.raises(StoreError, match="differs in the first picture as the network reads it"):
        nm.look("top_examples", other, data, keep=keep)


CHILD = """
import sys, time
import torch
torch.set_num_threads(1)
sys.path.insert(0, {here!r})
from test_top_examples import network, pictures
from neuralmine.lenses.top_examples import strongest
for done, total in strongest(network(), pictures(), batch=3, keep={keep!r}, every=1):
    print(done, flush=True)
    time.sleep(0.05)
"""


@pytest.mark.parametrize("after", [3, 21])
def test_killed_and_resumed_is_the_same_to_the_bit(tmp_path, after):
    net, data = network(), pictures()
    code = CHILD.format(here=os.path.dirname(__file__), keep=str(tmp_path))
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    for line in child.stdout:
        if int(line) >= after:
            os.kill(child.pid, signal.SIGKILL)
            break
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()
    begin = next(strongest(net, data, batch=3, keep=str(tmp_path)))[0]
    assert after <= begin < 45
    resumed = nm.look("top_examples", net, data, batch=3, keep=str(tmp_path))
    for key, value in nm.look("top_examples", net, data, batch=3).numbers.items():
        assert value.tobytes() == resumed.numbers[key].tobytes(), key


# ── Folders of files ──


def write(folder, count, size=(18, 20), start=0):
    for i in range(start, start + count):
        pixels = np.random.default_rng(i).integers(0, 256, (*size, 3), dtype=np.uint8)
        (folder / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / "ab"[i % 2] / f"{i:05d}.png", compress_level=1)


def test_a_folder_is_the_same_as_its_arrays(tmp_path):
    write(tmp_path, 30, (40, 50))
    (tmp_path / "a" / "notes.txt").write_text("no picture")
    lazy = stream(tmp_path, size=(18, 20))
    loaded = nm.Dataset("loaded", np.asarray(lazy.images), lazy.labels, lazy.classes)
    assert lazy.images.shape == loaded.images.shape == (30, 18, 20, 3)
    assert loaded.images.dtype == lazy.images.dtype == np.float32
    assert lazy.classes == ("a", "b")
    assert np.array_equal(lazy.images[-1], loaded.images[-1])
    for which in (slice(3, 9), np.array([4, 1]), lazy.labels == 1):
        assert np.array_equal(np.asarray(lazy.images[which]), loaded.images[which])
    assert np.array_equal(np.asarray(lazy.take([3, 5]).images), loaded.take([3, 5]).images)
    net = network()
    one, other = nm.look("top_examples", net, lazy, batch=8), nm.look("top_examples", net, loaded, batch=8)
    for key, value in other.numbers.items():
        assert np.array_equal(value, one.numbers[key]), key
    assert [view.text() for view in one.views] == [view.text() for view in other.views]


def test_the_fingerprint_changes_with_the_files_and_opens_none(tmp_path):
    write(tmp_path, 4)
    first = stream(tmp_path, size=(18, 20)).images
    mark = first.fingerprint()
    assert mark == stream(tmp_path, size=(18, 20)).images.fingerprint()
    assert mark != stream(tmp_path, size=(18, 21)).images.fingerprint()
    assert mark != first[1:].fingerprint()
    file = first.files[0]
    os.utime(file, ns=(1, time.time_ns()))
    assert mark != first.fingerprint()
    file.write_bytes(b"broken")
    first.fingerprint()
    with pytest.raises(DataError, match=file.name):
        first[0]
    file.unlink()
    with pytest.raises(DataError, match=file.name):
        first.fingerprint()


def test_folders_without_pictures(tmp_path):
    with pytest.raises(DataError, match="has no pictures"):
        stream(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        stream(tmp_path / "nowhere")


MEMORY = """
import json, resource, sys
import torch
torch.set_num_threads(1)
import neuralmine as nm
from neuralmine.datasets.stream import stream
module = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3, 2), torch.nn.ReLU(), torch.nn.Conv2d(16, 16, 3))
torch.manual_seed(0)
net = nm.load(module, shape=(3, 96, 96))
data = stream({folder!r}, size=(96, 96))
nm.look("top_examples", net, data.take(slice({count})), batch=16)
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    write(tmp_path, 800, (96, 96))  # as arrays, 600 of them are 63 MiB

    def peak(count):
        code = MEMORY.format(folder=str(tmp_path), count=count)
        return json.loads(
            subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        )

    assert peak(800) - peak(200) < 12
