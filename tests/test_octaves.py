"""The climb against a plain, slow one in numpy; tiles against the whole; what goes wrong on the way."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import neuralmine as nm
from neuralmine import octaves
from neuralmine.errors import DataError, UnknownName, UsageError
from neuralmine.networks.vision import load_vision
from neuralmine.octaves import (
    Settings,
    at_budget,
    climb,
    distance,
    dreaming_steps,
    dreamt,
    gradient_of,
    ladder,
    objective_of,
    photo_of,
    scene_of,
    series_steps,
    shuffled_change,
    wanted_of,
)


def conv_net(seed=0, **options):
    torch.manual_seed(seed)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 5, 3, stride=2, padding=1),
        torch.nn.ReLU(inplace=True),
        torch.nn.Conv2d(5, 6, 3),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(6, 4),
    )
    return nm.load(module, shape=(3, 16, 16), mean=[0.4, 0.5, 0.6], std=[0.2, 0.25, 0.3], **options)


def photo(rows=34, columns=45, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), dtype=np.uint8)


# ── A plain, slow dream ──


def plain_resize(picture, size):
    """Triangles, as wide as the larger of the two pixel grids, normalised."""
    for axis, wanted in ((1, size[0]), (2, size[1])):
        have = picture.shape[axis]
        ratio = have / wanted
        width = max(ratio, 1.0)
        matrix = np.zeros((wanted, have))
        for i in range(wanted):
            for j in range(have):
                matrix[i, j] = max(0.0, 1 - abs((j + 0.5) - (i + 0.5) * ratio) / width)
            matrix[i] /= matrix[i].sum()
        picture = np.moveaxis(np.tensordot(matrix, picture, (1, axis)), 0, axis)
    return picture


def plain_gradient(picture, weight, bias, mean, std):
    """d mean(conv(x)²) / d x for one convolution of 3 × 3 with stride 2 and padding 1, by loops."""
    x = np.pad((picture - mean[:, None, None]) / std[:, None, None], ((0, 0), (1, 1), (1, 1)))
    rows, columns = (x.shape[1] - 3) // 2 + 1, (x.shape[2] - 3) // 2 + 1
    value, slopes = 0.0, np.zeros_like(x)
    count = len(weight) * rows * columns
    for i in range(rows):
        for j in range(columns):
            patch = x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
            answers = (weight * patch).sum((1, 2, 3)) + bias
            value += (answers**2).sum() / count
            slopes[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3] += np.tensordot(2 * answers / count, weight, 1)
    return value, slopes[:, 1:-1, 1:-1] / std[:, None, None]


def plain_dream(image, weight, bias, mean, std, *, octaves, scale, steps, strength, jitter, seed):
    whole = np.moveaxis(image, -1, 0) / 255.0
    sizes = [(round(whole.shape[1] / scale**k), round(whole.shape[2] / scale**k)) for k in range(octaves)][::-1]
    detail, values = np.zeros((3, *sizes[0])), []
    for octave, size in enumerate(sizes):
        base = plain_resize(whole, size)
        picture = np.clip(base + plain_resize(detail, size), 0, 1) if octave else base
        for step in range(steps):
            most = min(jitter, min(size) // 4)
            down, right = np.random.default_rng([seed, octave, step]).integers(-most, most + 1, 2)
            rolled = np.roll(picture, (down, right), (1, 2))
            value, slopes = plain_gradient(rolled, weight, bias, mean, std)
            slopes = np.roll(slopes, (-down, -right), (1, 2))
            picture = np.clip(picture + strength / 255 * slopes / np.abs(slopes).mean(), 0, 1)
            values.append(value)
        detail = picture - base
    return np.moveaxis(picture, 0, -1), values


def test_ten_steps_equal_a_plain_slow_dream():
    network, image = conv_net(), photo()
    settings = {"octaves": 2, "scale": 1.4, "steps": 5, "strength": 3.0, "jitter": 6, "seed": 7}
    frames, values = dreaming_steps(network, image, layer="0", **settings), []
    for frame in frames:
        if not frame.last:
            values.append(frame.objective)
        picture = frame.picture
    conv = network.module[0]
    weight, bias = conv.weight.detach().double().numpy(), conv.bias.detach().double().numpy()
    mean, std = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.25, 0.3])
    wanted, slow = plain_dream(image, weight, bias, mean, std, **settings)
    assert len(values) == 10
    assert np.abs(picture - wanted).max() < 1e-4
    assert values == pytest.approx(slow, rel=1e-4)
    assert np.abs(picture - image / 255).mean() > 0.02  # it did move


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    network, image = conv_net(), photo()
    last = [list(dreaming_steps(network, image, layer="2", steps=3, seed=seed))[-1].picture for seed in (0, 0, 1)]
    assert np.array_equal(last[0], last[1])
    assert not np.array_equal(last[0], last[2])


def test_going_on_from_the_middle_is_the_same_to_the_bit():
    network, image = conv_net(), photo()
    whole, states = None, []
    for frame in dreaming_steps(network, image, layer="2", steps=3, octaves=2):
        states.append(frame.capture())
        whole = frame.picture
    for state in states[:-1]:
        again = list(dreaming_steps(network, image, layer="2", steps=3, octaves=2, start=state))[-1].picture
        assert np.array_equal(again, whole)
    other = list(dreaming_steps(network, image, layer="2", steps=3, octaves=2, strength=9.0, start=states[1]))
    assert len(other) == 5  # two steps were done
    assert not np.array_equal(other[-1].picture, whole)


# ── Tiles ──


@pytest.mark.parametrize("unit", [None, 3])
@pytest.mark.parametrize("layer", ["0", "2"])
def test_tiles_give_the_gradient_of_the_whole(layer, unit):
    network = conv_net()
    scene = scene_of(network, photo(131, 170), [layer])
    wanted = wanted_of(scene, layer=layer, unit=unit)
    picture = torch.as_tensor(scene.photo)
    value, slopes = gradient_of(scene, picture, wanted, 4096)
    tiled_value, tiled = gradient_of(scene, picture, wanted, 64)
    assert tiled_value == pytest.approx(value, rel=1e-5)
    assert float((tiled - slopes).abs().max()) < 1e-6 * float(slopes.abs().max()) + 1e-9
    assert objective_of(scene, scene.photo, wanted, 64) == pytest.approx(value, rel=1e-5)
    assert len(list(octaves.gradients._tiles((131, 170), wanted, 64))) == 9
    assert len(list(octaves.gradients._tiles((60, 64), wanted, 64))) == 1


def test_tiles_are_shown_what_they_depend_on_and_no_more_than_asked():
    network = conv_net()
    wanted = wanted_of(scene_of(network, photo(), ["2"]), layer="2")
    covered = np.zeros((300, 200), int)
    for core, seen in octaves.gradients._tiles((300, 200), wanted, 64):
        covered[core] += 1
        assert all(s.start % 2 == 0 and s.stop - s.start <= 64 + 2 * 16 for s in seen)
    assert (covered == 1).all()


# ── What is asked, and what is not possible ──


def test_units_classes_and_guides_climb_what_they_say():
    network, image = conv_net(), photo()
    for asked in ({"layer": "2", "unit": 3}, {"target": 2}, {"layer": "2", "guide": photo(20, 20, 5)}):
        scene = scene_of(network, image, [asked.get("layer", "")])
        made = dreamt(scene, wanted_of(scene, **asked), Settings(steps=5, octaves=2, jitter=0))
        assert made.after > made.before, asked
    with torch.no_grad():
        fed = torch.as_tensor(np.moveaxis(image, -1, 0) / 255 - np.array([0.4, 0.5, 0.6])[:, None, None])
        fed = (fed / torch.tensor([0.2, 0.25, 0.3]).view(3, 1, 1)).float()[None]
        maps, other = network.module[:3](fed.clone()), scene_of(network, photo(20, 20, 5), ["2"])
        scene = scene_of(network, image, ["2"])
        assert objective_of(scene, scene.photo, wanted_of(scene, layer="2", unit=3)) == pytest.approx(float(maps[0, 3].mean()), rel=1e-4)  # fmt: skip
        assert objective_of(scene, scene.photo, wanted_of(scene, target=2)) == pytest.approx(float(network.module(fed)[0, 2]), rel=1e-4)  # fmt: skip
        guided = wanted_of(scene, layer="2", guide=photo(20, 20, 5))
        assert guided.guide is not None
        best = [max(float(place @ one) for one in guided.guide) for place in maps[0].flatten(1).T]
        assert objective_of(scene, scene.photo, guided) == pytest.approx(np.mean(best), rel=1e-4)
        assert other.free


def test_wrong_wishes_say_what_is_right():
    network, image = conv_net(), photo()
    for settings in ({"octaves": 0}, {"strength": 0}, {"steps": 1.5}, {"scale": 1.0}, {"jitter": -1}, {"budget": 2}):
        with pytest.raises(UsageError, match=next(iter(settings))):
            next(dreaming_steps(network, image, layer="0", **settings))
    with pytest.raises(UnknownName):
        next(dreaming_steps(network, image, layer="0", strenght=2))
    with pytest.raises(UnknownName):
        next(dreaming_steps(network, image, layer="00"))
    with pytest.raises(UnknownName):
        next(dreaming_steps(network, image, target="nothing"))
    with pytest.raises(UsageError, match="units 0 to 5"):
        next(dreaming_steps(network, image, layer="2", unit=6))
    with pytest.raises(UsageError, match="goes with no layer"):
        next(dreaming_steps(network, image, layer="2", target=1))
    with pytest.raises(UsageError, match="too small"):
        next(dreaming_steps(network, photo(2, 3), layer="2"))
    with pytest.raises(DataError):
        next(dreaming_steps(network, np.full((20, 20, 3), np.nan), layer="2"))
    with pytest.raises(DataError):
        next(dreaming_steps(network, b"no picture", layer="2"))


def test_octaves_too_small_for_the_network_are_left_out_and_said():
    network = conv_net()
    scene = scene_of(network, photo(9, 9), ["2"])
    made = dreamt(scene, wanted_of(scene, layer="2"), Settings(octaves=6, steps=1))
    assert 1 <= len(made.objective) < 6
    assert "octaves were left out" in made.note


class Breaks(torch.nn.Module):
    def forward(self, x):
        return x + (float("nan") if float(x.detach().mean()) > 0.53 else 0.0)


def test_nan_on_the_way_stops_and_keeps_the_last_good_picture():
    module = torch.nn.Sequential(Breaks(), torch.nn.Identity())
    network = nm.load(module, shape=(3, 16, 16))
    image = np.full((20, 20, 3), 0.5, np.float32)
    good, frames = None, []
    for frame in dreaming_steps(network, image, layer="1", octaves=1, steps=50, strength=3.0):
        frames.append(frame)
        if np.isfinite(frame.objective):
            good = frame.objective
    assert 3 < len(frames) < 10
    assert frames[-2].trouble[0].name == "not a number"
    assert frames[-2].trouble[0].stops
    assert frames[-1].last
    picture = frames[-1].picture
    assert np.isfinite(picture).all()
    assert float((picture**2).mean()) == pytest.approx(good, rel=1e-5)  # the last picture the network could answer
    finding = nm.look("dream", network, image, layer="1", octaves=1, steps=50, strength=3.0)
    assert "last good picture" in finding.summary
    assert np.isfinite(finding.numbers["after"])


def test_a_layer_without_gradient_says_so_and_what_to_do():
    network = conv_net()
    with torch.no_grad():
        network.module[0].bias.fill_(-100)
    finding = nm.look("dream", network, photo(), layer="1", steps=2, octaves=2)
    assert "0 everywhere" in finding.summary
    assert "Choose another" in finding.summary
    assert np.array_equal(finding.numbers["picture"], finding.numbers["original"])


def test_a_network_of_one_size_gets_the_photo_fitted(digits, net):
    finding = nm.look("dream", net, digits.images[3], layer="hidden1", steps=4, strength=8.0)
    assert finding.numbers["picture"].shape == (8, 8, 3)
    assert np.allclose(finding.numbers["original"][..., 0], digits.images[3])
    assert finding.numbers["after"] > finding.numbers["before"]
    whole = nm.look("dream", net, photo(), layer="hidden1", steps=1)
    assert "8 × 8 pixels only" in whole.summary


# ── Photos ──


def test_photos_keep_their_size_and_bytes(tmp_path):
    network, image = conv_net(), photo(50, 70)
    Image.fromarray(image).save(tmp_path / "a.png")
    for given in (image, tmp_path / "a.png", str(tmp_path / "a.png"), (tmp_path / "a.png").read_bytes(), Image.fromarray(image)):  # fmt: skip
        picture, note = photo_of(network, given)
        assert np.array_equal(np.rint(np.moveaxis(picture, 0, -1) * 255), image)
        assert not note
    large = np.zeros((2100, 2200, 3), np.uint8)
    large[::2] = 200
    buffer = io.BytesIO()
    Image.fromarray(large).save(buffer, "PNG", compress_level=1)
    assert np.array_equal(np.rint(np.moveaxis(photo_of(network, buffer.getvalue())[0], 0, -1) * 255), large)
    picture, note = photo_of(network, np.zeros((10, 5000, 3), np.uint8))
    assert picture.shape == (3, 8, 4096)
    assert "reduced" in note


# ── Budgets ──


def test_a_budget_is_reached_from_above_and_below_also_where_colours_are_cut():
    generator = np.random.default_rng(0)
    before = generator.uniform(0, 1, (3, 40, 50)).astype(np.float32)
    for size in (0.01, 0.9):
        for budget in (0.03, 0.2):
            after = np.clip(before + size * generator.standard_normal(before.shape), 0, 1).astype(np.float32)
            at_budget(before, after, budget)
            assert np.sqrt(((after.astype(float) - before) ** 2).mean()) == pytest.approx(budget, rel=1e-5)
            assert after.min() >= 0
            assert after.max() <= 1
            mixed = shuffled_change(before, after, generator)
            assert distance(before, mixed) == pytest.approx(budget, rel=1e-4)
    same = before.copy()
    assert at_budget(before, same, 0.1) == 0
    assert np.array_equal(same, before)


# ── The ladder and the series ──


def test_a_zoom_enlarges_the_middle_and_dreams_on():
    scene = octaves.scene_of(conv_net(), np.random.default_rng(3).random((24, 32, 3)).astype(np.float32))
    wanted = octaves.wanted_of(scene, layer="0")
    settings = octaves.Settings(octaves=1, steps=2, jitter=0, strength=1.0)
    walk = list(octaves.zooming_steps(scene, wanted, settings, frames=3, factor=1.0, steps=2))
    picture = octaves.dreamt(scene, wanted, settings).picture
    assert np.array_equal(walk[0], octaves.eight_bits(picture))
    for shown in walk[1:]:  # without zooming it is the same climb, gone on with
        before = octaves.objective_of(scene, picture, wanted)
        picture = octaves.dreamt(replace(scene, photo=picture), wanted, settings).picture
        assert octaves.objective_of(scene, picture, wanted) > before
        assert np.abs(shown.astype(int) - octaves.eight_bits(picture)).max() <= 1
    # The middle stays, and a ramp's slope is divided by the factor, as far as torch's cubic (a = −0.75) keeps ramps.
    ramp = np.broadcast_to(np.linspace(0.2, 0.8, 41, dtype=np.float32), (3, 31, 41))
    larger = octaves.enlarged(np.ascontiguousarray(ramp), 1.25)
    assert larger[:, :, 4:-4] == pytest.approx(0.5 + (ramp[:, :, 4:-4] - 0.5) / 1.25, abs=2e-3)
    with pytest.raises(UsageError, match="larger"):
        next(octaves.zooming_steps(scene, wanted, settings, factor=3.0))


def test_a_ladder_has_one_rung_a_stage():
    assert [layer.name for layer in ladder(conv_net())] == ["0", "2"]
    assert [layer.name for layer in ladder(conv_net(), "3, 1")] == ["1", "3"]  # in depth order
    with pytest.raises(UnknownName):
        ladder(conv_net(), "0,nothing")
    with pytest.raises(UsageError):
        ladder(conv_net(), " , ")
    network = load_vision("squeezenet", trained=False)
    assert [layer.name for layer in ladder(network)] == [f"features.{k}" for k in range(13) if k != 1]
    network = load_vision("lite0", trained=False)
    names = [layer.name for layer in ladder(network)]
    assert len(names) == 16
    assert names[0] == "stem.conv"
    assert names[-1] == "head.conv"


def test_a_series_goes_on_where_it_was_left(tmp_path, monkeypatch):
    network, image = conv_net(), photo()
    settings = {"steps": 2, "octaves": 2, "budget": 0.08, "keep": tmp_path}
    for rung in series_steps(network, image, **settings):
        if rung.picture is not None:
            first = rung
            break
    assert [path.name for path in tmp_path.iterdir()] == ["01-0.png"]
    climbed = []
    monkeypatch.setattr(octaves.series, "climb", lambda scene, wanted, *rest: climbed.append(wanted.layer) or climb(scene, wanted, *rest))  # fmt: skip
    done = [rung for rung in series_steps(network, image, **settings) if rung.picture is not None]
    assert climbed == ["2"]
    assert done[0].read
    assert not done[1].read
    assert np.array_equal(done[0].picture, first.picture)
    assert done[0].about == first.about
    list(series_steps(network, image, **{**settings, "seed": 3}))
    assert climbed == ["2", "0", "2"]  # other settings: dreamt again
    (tmp_path / "01-0.png").write_bytes(b"broken")
    list(series_steps(network, image, **{**settings, "seed": 3}))
    assert climbed[3:] == ["0"]
