"""Surfaces against plain float64 loops and numpy; what is said of subsets, norms and losses that are not numbers."""

import copy

import numpy as np
import pytest
import torch

import neuralmine as nm
from neuralmine.errors import UsageError
from neuralmine.lens import weights_hash
from neuralmine.surfaces import (
    Landscape,
    Plane,
    between_plane,
    coarse_to_fine,
    filter_normalised,
    random_plane,
    subset,
    surface,
    surface_steps,
    trajectory_plane,
    weights_of,
)

AXIS = np.linspace(-1, 1, 5)


def seeing(norm=True):
    """A small convolutional net with batch norm that has seen something, and pictures."""
    torch.manual_seed(2)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3),
        torch.nn.BatchNorm2d(4) if norm else torch.nn.Identity(),
        torch.nn.ReLU(inplace=True),
        torch.nn.AdaptiveAvgPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Dropout(0.5),
        torch.nn.Linear(16, 2),
    )
    module.train()
    module(torch.randn(64, 3, 8, 8))
    generator = np.random.default_rng(0)
    data = nm.Dataset("made", generator.random((30, 8, 8, 3)).astype(np.float32), np.arange(30) % 2, ("a", "b"))
    return nm.load(module, shape=(3, 8, 8), labels=("a", "b")), data


def by_hand(network, data, plane, x, y):
    """Each point its own copy of the network, in float64."""
    module = copy.deepcopy(network.module).double().eval()
    inputs = network.encode(data.images).double()
    labels = torch.as_tensor(np.asarray(data.labels)).long()
    own = {name: p.detach().clone() for name, p in module.named_parameters()}
    found = np.empty((len(y), len(x)))
    for i, b in enumerate(y):
        for j, a in enumerate(x):
            with torch.no_grad():
                for name, p in module.named_parameters():
                    moved = own[name].numpy().copy()
                    for factor, direction in zip((a, b), plane.directions, strict=False):
                        moved += factor * direction[name]
                    p.copy_(torch.as_tensor(moved))
                out = module(inputs)
                if network.loss == "squared":
                    wanted = torch.nn.functional.one_hot(labels, out.shape[1]) if out.shape[1] > 1 else labels[:, None]
                    found[i, j] = (out - wanted).square().sum(1).mean()
                else:
                    found[i, j] = torch.nn.functional.cross_entropy(out, labels)
    return found


def mlp(activation, loss, dtype, sizes=(64, 9, 7, 10)):
    from neuralmine.architectures.mlp import mlp as make

    module = make(sizes, activation=activation, output="sigmoid" if loss == "squared" else "linear", dropout=0.2, dtype=dtype, seed=1)  # fmt: skip
    return nm.load(module, shape=(8, 8), loss=loss)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu"])
@pytest.mark.parametrize("loss", ["squared", "cross_entropy"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dense_nets_agree_with_a_plain_loop(digits, activation, loss, dtype):
    network, data = mlp(activation, loss, dtype), digits.take(slice(0, 200))
    plane = random_plane(network, seed=3)
    landscape = Landscape(network, data, plane)
    assert landscape.batched
    right = by_hand(network, data, plane, AXIS, AXIS)
    np.testing.assert_allclose(surface(landscape, AXIS, AXIS), right, rtol=1e-5, atol=1e-5)
    landscape._chain = None
    np.testing.assert_allclose(surface(landscape, AXIS, AXIS), right, rtol=1e-5, atol=1e-5)


def test_many_images_in_several_blocks(net, digits, monkeypatch):
    from neuralmine import surfaces

    plane = random_plane(net)
    right = surface(Landscape(net, digits, plane), AXIS, AXIS)
    monkeypatch.setattr(surfaces, "IMAGES", 100)
    np.testing.assert_allclose(surface(Landscape(net, digits, plane), AXIS, AXIS), right, rtol=1e-6)
    monkeypatch.setattr(surfaces, "KEPT", 0)
    np.testing.assert_allclose(surface(Landscape(net, digits, plane), AXIS, AXIS), right, rtol=1e-6)
    np.testing.assert_allclose(right, by_hand(net, digits, plane, AXIS, AXIS), rtol=1e-5)


@pytest.mark.parametrize("name", ["64-1", "64-2"])
def test_nets_weighted_by_hand(name, digits):
    network, data = nm.load(name), digits.only(("0", "1"))
    plane = random_plane(network)
    right = by_hand(network, data, plane, AXIS, AXIS)
    np.testing.assert_allclose(surface(Landscape(network, data, plane), AXIS, AXIS), right, rtol=1e-5, atol=1e-6)


def test_batch_norm_keeps_its_statistics_and_says_so():
    network, data = seeing()
    before = weights_hash(network)
    found = nm.look("loss_landscape", network, data, size=5)
    plane = random_plane(network)
    np.testing.assert_allclose(found.numbers["loss"], by_hand(network, data, plane, AXIS, AXIS), rtol=1e-5)
    assert "1 batch norm stay those of the network" in found.summary
    assert weights_hash(network) == before
    assert network.module.training
    assert "batch norm" not in nm.look("loss_landscape", *seeing(norm=False), size=2).summary


def test_a_module_that_is_no_chain_is_run_as_it_is(digits):
    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.last = torch.nn.Linear(64, 64), torch.nn.Linear(64, 10)

        def forward(self, x):
            return self.last(torch.relu(self.one(torch.relu(self.one(x.flatten(1))))))

    torch.manual_seed(0)
    network, data = nm.load(Twice(), shape=(8, 8)), digits.take(slice(0, 50))
    plane = random_plane(network)
    landscape = Landscape(network, data, plane)
    assert not landscape.batched
    np.testing.assert_allclose(
        surface(landscape, AXIS, AXIS), by_hand(network, data, plane, AXIS, AXIS), rtol=1e-5, atol=1e-5
    )
    hooked = mlp("relu", "cross_entropy", "float32")
    hooked.module.register_forward_hook(lambda *called: 2 * called[-1])
    twice = Landscape(hooked, data, random_plane(hooked))
    assert not twice.batched
    assert twice.at([[0.0, 0.0]])[0] == pytest.approx(twice.centre)


def test_the_middle_is_the_loss(net, digits):
    found = nm.look("loss_landscape", net, digits, size=5)
    right = nm.look("loss", net, digits).numbers["mean"]
    assert found.numbers["centre"] == pytest.approx(float(right), rel=1e-12)
    assert found.numbers["loss"][2, 2] == pytest.approx(float(right), rel=1e-5)
    assert found.checks[0].passed
    assert "all 1797 of" in found.summary


def test_filters_are_normalised_as_by_hand():
    generator = np.random.default_rng(5)
    weights, drawn = generator.normal(size=(4, 3, 2, 2)), generator.normal(size=(4, 3, 2, 2))
    found = filter_normalised(drawn, weights)
    for f in range(4):
        np.testing.assert_allclose(
            found[f], drawn[f] * np.linalg.norm(weights[f]) / (np.linalg.norm(drawn[f]) + 1e-10), rtol=1e-14
        )
    assert not filter_normalised(drawn[0, 0, 0], weights[0, 0, 0]).any()
    network, _ = seeing()
    for direction in random_plane(network, seed=1).directions:
        for name, w in weights_of(network).items():
            if w.ndim == 1:
                assert not direction[name].any()
            else:
                rows = w.reshape(len(w), -1), direction[name].reshape(len(w), -1)
                np.testing.assert_allclose(np.linalg.norm(rows[0], axis=1), np.linalg.norm(rows[1], axis=1))
    one, two = random_plane(network, seed=1), random_plane(network, seed=2)
    assert not np.array_equal(one.directions[0]["0.weight"], two.directions[0]["0.weight"])


def test_subsets_are_said(net, digits):
    data, said = subset(digits, 100, 1)
    assert len(data) == 100
    assert said.startswith("100 of the 1797")
    assert "100 of the 1797" in nm.look("loss_landscape", net, digits, size=2, limit=100).summary
    assert subset(digits, 5000)[0] is digits


def test_one_direction(net, digits):
    data = digits.take(slice(0, 60))
    found = nm.look("loss_landscape", net, data, dimensions=1, size=7, reach=2.0, seed=4)
    plane = random_plane(net, dimensions=1, seed=4)
    assert found.numbers["loss"].shape == (1, 7)
    assert found.views[0].kind == "lines"
    right = by_hand(net, data, plane, np.linspace(-2, 2, 7), [0.0])
    np.testing.assert_allclose(found.numbers["loss"], right, rtol=1e-5)
    assert np.array_equal(plane.directions[0]["hidden1.sum.weight"], random_plane(net, seed=4).directions[0]["hidden1.sum.weight"])  # fmt: skip


def test_the_way_to_another_network(digits, tmp_path):
    from neuralmine.networks.files import save

    network, other = nm.load("64-16-10"), nm.load("64-16-10", trained=False, seed=3)
    path = save(other, tmp_path / "other.safetensors", {"name": "mlp", "sizes": [64, 16, 10]})
    found = nm.look("loss_landscape", network, digits, directions="between", other=str(path), dimensions=1, size=5)
    ends = [float(nm.look("loss", item, digits).numbers["mean"]) for item in (network, other)]
    np.testing.assert_allclose(found.numbers["loss"][0, [0, -1]], ends, rtol=1e-5)
    np.testing.assert_allclose(found.numbers["x"], np.linspace(0, 1, 5))
    assert found.numbers["barrier"] >= -1e-6
    wide = nm.look("loss_landscape", network, digits, directions="between", other=str(path), size=4, limit=50)
    assert wide.numbers["loss"].shape == (4, 4)
    plane = between_plane(network, other, dimensions=1)
    np.testing.assert_allclose(
        surface(Landscape(network, digits, plane), [0, 0.5, 1], [0.0]),
        by_hand(network, digits, plane, [0, 0.5, 1], [0.0]),
        rtol=1e-5,
    )


def test_networks_that_do_not_fit(net, digits):
    for other in ("64-10", "64-16-16-10", "784-16-16-10"):
        with pytest.raises(UsageError, match="same architecture"):
            nm.look("loss_landscape", net, digits, directions="between", other=other)
    for options in ({"directions": "between"}, {"directions": "pca"}, {"directions": "between", "other": "os:system"}):
        with pytest.raises(UsageError):
            nm.look("loss_landscape", net, digits, **options)
    bare = nm.load(torch.nn.Flatten(), shape=(8, 8))
    for lens in ("loss_landscape", "curvature"):
        with pytest.raises(UsageError, match="no weights"):
            nm.look(lens, bare, digits.take(slice(0, 20)))


def test_losses_that_are_no_numbers_are_kept_and_said(digits):
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 8), torch.nn.ReLU(), torch.nn.Linear(8, 10))
    with torch.no_grad():
        module[3].weight *= 1e30
    network, data = nm.load(module, shape=(8, 8), loss="squared"), digits.take(slice(0, 20))
    found = nm.look("loss_landscape", network, data, size=3, reach=1e6)
    assert not np.isfinite(found.numbers["loss"]).all()
    assert "not finite numbers" in found.summary
    assert found.views[0].text()
    assert found.views[0].to_png()


def test_a_trajectory_s_plane(digits, tmp_path):
    network, data = nm.load("64-10", trained=False), digits.take(slice(0, 200))
    steps = list(nm.train(network, data, optimizer="sgd", lr=0.3, epochs=6, record=("weights",)))
    states = [step.weights for step in steps]
    plane = trajectory_plane(network, states)
    flat = np.stack([np.concatenate([w.ravel() for w in state.values()]) for state in states])
    moved = flat - flat[-1]
    centred = moved - moved.mean(0)
    values = np.linalg.svd(centred, compute_uv=False) ** 2
    np.testing.assert_allclose(plane.explained, values[:2] / values.sum(), rtol=1e-9)
    directions = [np.concatenate([d[name].ravel() for name in states[0]]) for d in plane.directions]
    np.testing.assert_allclose(np.array(directions) @ np.array(directions).T, np.eye(2), atol=1e-9)
    np.testing.assert_allclose(plane.path, moved @ np.array(directions).T, atol=1e-9)
    np.testing.assert_allclose(plane.path[-1], 0, atol=1e-9)
    assert trajectory_plane(network, states, dimensions=1).path.shape == (len(states), 2)
    with pytest.raises(UsageError, match="span"):
        trajectory_plane(network, states[:2])
    with pytest.raises(UsageError, match="does not move"):
        trajectory_plane(network, [states[0]] * 4)
    with pytest.raises(UsageError, match="not numbers"):
        trajectory_plane(network, [*states, {name: w * np.nan for name, w in states[0].items()}])
    from neuralmine.stores import runs

    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    network = nm.load("64-10", trained=False)
    for step in nm.train(network, data, optimizer="sgd", lr=0.3, epochs=6):
        runs.save_state(tmp_path / "run", step.capture())
    found = nm.look("loss_landscape", network, data, directions="pca", run=str(tmp_path / "run"), size=5)
    np.testing.assert_allclose(found.numbers["explained"], plane.explained, rtol=1e-9)
    assert found.numbers["path"].shape == (7, 2)
    assert found.numbers["loss"][2, 2] == pytest.approx(float(found.numbers["centre"]), rel=1e-5)


def test_coarse_first_and_the_same_at_the_end(net, digits):
    landscape, x, y = Landscape(net, digits.take(slice(0, 50)), random_plane(net)), np.linspace(-1, 1, 41), AXIS
    steps = list(surface_steps(landscape, x, y))
    whole = surface(landscape, x, y)
    assert steps[0].loss.shape == (5, 6)
    assert [step.last for step in steps] == [False, False, False, True]
    assert np.array_equal(steps[-1].loss, whole)
    for step in steps:
        at = np.ix_(np.searchsorted(y, step.y), np.searchsorted(x, step.x))
        assert np.array_equal(step.loss, whole[at])
        assert step.known.all()
    assert steps[-1].done == steps[-1].total == 205
    for finer, coarser in zip(coarse_to_fine(100)[1:], coarse_to_fine(100), strict=False):
        assert set(coarser) <= set(finer)


def test_slow_surfaces_say_how_far_they_are():
    network, data = seeing()
    landscape = Landscape(network, data, random_plane(network))
    steps = list(surface_steps(landscape, AXIS, AXIS, every=0.0))
    assert len(steps) == 25
    assert [step.done for step in steps] == list(range(1, 26))
    assert int(steps[3].known.sum()) == 4
    assert np.isnan(steps[3].loss[~steps[3].known]).all()
    before = weights_hash(network)
    for step in surface_steps(landscape, AXIS, AXIS, every=0.0):
        if step.done == 3:
            break
    assert weights_hash(network) == before


def test_a_plane_may_be_one_s_own(net, digits):
    weights = weights_of(net)
    plane = Plane(({name: np.ones_like(w) for name, w in weights.items()},), "all weights and biases up")
    data = digits.take(slice(0, 40))
    np.testing.assert_allclose(
        Landscape(net, data, plane).at([[-0.1], [0.2]]), by_hand(net, data, plane, [-0.1, 0.2], [0.0])[0], rtol=1e-5
    )


def test_the_statistics_of_batch_norms_go_along_to_the_other_network():
    network, data = seeing()
    other, _ = seeing()
    with torch.no_grad():
        for parameter in other.module.parameters():
            parameter += 0.3
        other.module[1].running_mean += 0.5
        other.module[1].running_var *= 3
    landscape = Landscape(network, data, between_plane(network, other, dimensions=1))
    ends = [float(nm.look("loss", item, data).numbers["mean"]) for item in (network, other)]
    before = weights_hash(network)
    np.testing.assert_allclose(landscape.at([[0.0], [1.0], [0.0]]), [*ends, ends[0]], rtol=1e-5)
    assert "go along x" in landscape.about
    assert weights_hash(network) == before


def test_what_float32_cannot_hold_is_worked_out_in_the_network_s_own_precision(digits):
    network, data = mlp("relu", "squared", "float64"), digits.take(slice(0, 20))
    with torch.no_grad():
        network.module.output.sum.weight *= 1e18
    bare = torch.nn.Sequential(*list(network.module)[:-1], network.module.output.sum)
    network = nm.load(bare, shape=(8, 8), loss="squared")
    plane, axis = random_plane(network), np.array([-50.0, 0.0, 50.0])
    landscape = Landscape(network, data, plane)
    assert landscape.batched
    right = by_hand(network, data, plane, axis, axis)
    assert right.max() > 3.5e38
    np.testing.assert_allclose(surface(landscape, axis, axis), right, rtol=1e-5)


def test_the_other_network_may_be_untrained_or_a_run(digits, tmp_path, monkeypatch):
    network, began = nm.load("64-10"), nm.load("64-10", trained=False)
    options = {"directions": "between", "dimensions": 1, "size": 3, "limit": 100}
    found = nm.look("loss_landscape", network, digits, other="64-10:untrained", **options)
    used, _ = subset(digits, 100)
    output = began.module(torch.as_tensor(used.images.reshape(100, -1), dtype=torch.float64)).detach().numpy()
    wanted = ((output - np.eye(10)[used.labels]) ** 2).sum(1).mean()
    assert found.numbers["loss"][0, -1] == pytest.approx(wanted, rel=1e-5)
    monkeypatch.setenv("NEURALMINE_HOME", str(tmp_path))
    with pytest.raises(nm.errors.UnknownName):
        nm.look("loss_landscape", network, digits, other="run:nowhere", **options)
