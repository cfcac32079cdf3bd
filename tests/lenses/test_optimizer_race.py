"""optimizer_race: same start, same batches, exact losses, one plane, and clear ends for what goes wrong."""

import numpy as np
import pytest
import torch

import neuralmine as nm
from neuralmine.architectures.mlp import mlp
from neuralmine.errors import DataError, UnknownName, UsageError
from neuralmine.lens import weights_hash
from neuralmine.races import GRID, Race, race_steps


@pytest.fixture(scope="module")
def data():
    return nm.datasets.load("digits").take(slice(0, 100))


def fresh(**more):
    return nm.load(mlp([64, 6, 10], seed=1, **more), shape=(8, 8), loss="squared")


def loss_at(data, place):
    module = fresh().module
    torch.nn.utils.vector_to_parameters(torch.tensor(place), module.parameters())
    with torch.no_grad():
        out = module(torch.tensor(data.images, dtype=torch.float64)).numpy()
    return float(((out - np.eye(10)[data.labels]) ** 2).sum(1).mean())


def test_losses_are_exact_at_every_point_and_the_network_keeps_its_weights(data):
    network = fresh()
    before = weights_hash(network)
    for step in race_steps(network, data, optimizers="adam,momentum,adamax", steps=7, lr=0.02):
        for name in step.losses:
            assert step.losses[name] == pytest.approx(loss_at(data, step.weights(name)), abs=1e-12)
            start = torch.cat([p.detach().reshape(-1) for p in network.module.parameters()]).numpy()
            assert step.moved[name] == pytest.approx(np.linalg.norm(step.weights(name) - start), abs=1e-12)
    assert step.last
    assert weights_hash(network) == before


def test_sgd_in_a_race_is_the_training_everyone_else_runs(data):
    network, twin = fresh(), fresh()
    step = list(race_steps(network, data, optimizers="sgd,adam", steps=14, batch=16, lr=0.4, seed=5))[-1]
    for _ in nm.train(twin, data, optimizer="sgd", lr=0.4, batch=16, epochs=2, seed=5):
        pass
    trained = torch.cat([p.detach().reshape(-1) for p in twin.module.parameters()]).numpy()
    assert np.allclose(step.weights("sgd"), trained, atol=1e-12)


def test_the_plane_is_the_principal_one_by_singular_values(data):
    finding = nm.look(
        "optimizer_race", fresh(), data, optimizers="sgd,adam,lbfgs", lr="sgd=1,adam=.05,lbfgs=1", steps=12
    )
    numbers = finding.numbers
    points = []
    for step in race_steps(fresh(), data, optimizers="sgd,adam,lbfgs", lr="sgd=1,adam=.05,lbfgs=1", steps=12):
        points.append([step.weights(name) for name in ("sgd", "adam", "lbfgs")])
    points = np.swapaxes(np.array(points), 0, 1)
    rows = points.reshape(-1, points.shape[-1])
    centred = rows - rows.mean(0)
    values = np.linalg.svd(centred, compute_uv=False)
    assert numbers["explained"] == pytest.approx((values[:2] ** 2).sum() / (values**2).sum(), abs=1e-9)
    assert np.allclose(numbers["axes"] @ numbers["axes"].T, np.eye(2), atol=1e-9)
    assert np.allclose(numbers["paths"], (points - numbers["centre"]) @ numbers["axes"].T, atol=1e-9)
    rest = points - numbers["centre"] - numbers["paths"] @ numbers["axes"]
    assert np.allclose(numbers["off"], np.linalg.norm(rest, axis=-1), atol=1e-6)
    # All begin at one place, and what lies in the plane has its own exact loss.
    assert np.ptp(numbers["paths"][:, 0], axis=0).max() < 1e-12
    assert np.ptp(numbers["loss"][:, 0]) == 0


def test_rates_are_swept_by_the_rule_that_is_stated(data):
    finding = nm.look("optimizer_race", fresh(), data, optimizers="sgd,adam", lr="sgd=0.5", steps=16)
    assert finding.numbers["lr"][0] == 0.5
    ends = {}
    for rate in GRID:
        steps = list(race_steps(fresh(), data, optimizers="sgd,adam", lr={"sgd": 0, "adam": rate}, steps=4))
        ends[rate] = steps[-1].losses["adam"]
    assert finding.numbers["lr"][1] == min(ends, key=ends.get)
    assert finding.provenance["swept"]["adam"] == pytest.approx({f"{rate:.4g}": loss for rate, loss in ends.items()})
    assert "sgd" not in finding.provenance["swept"]


def test_the_null_is_plain_gradient_descent_and_seeds_give_the_spread(data):
    finding = nm.look(
        "optimizer_race", fresh(), data, optimizers="sgd,adam", lr="sgd=1,adam=.05", steps=8, seeds=3, start="random"
    )
    numbers = finding.numbers
    assert numbers["loss_of_seeds"].shape == (3, 2, 9)
    assert np.array_equal(numbers["loss"], numbers["loss_of_seeds"][0])
    assert len(set(numbers["loss_of_seeds"][:, 0, 0])) == 3  # three starts
    check = finding.checks[0]
    best = int(numbers["loss_of_seeds"][:, :, -1].mean(0).argmin())
    ends = numbers["loss_of_seeds"][:, best, -1]
    assert check.measured == pytest.approx(ends.mean())
    assert check.interval == pytest.approx((ends.min(), ends.max()))
    assert check.null == pytest.approx(numbers["plain"][:, -1].mean())
    own = nm.look("optimizer_race", fresh(), data, optimizers="sgd,gradient_descent", lr="1", steps=8)
    assert np.array_equal(own.numbers["plain"][0], own.numbers["loss"][1])


def test_rates_change_while_it_runs(data):
    race = race_steps(fresh(), data, optimizers="sgd,adam", steps=5, lr="0.1")
    first = next(race)
    assert first.index == 0
    assert first.rates == {"sgd": 0.1, "adam": 0.1}
    step = race.send({"adam": 0.0})
    assert step.rates == {"sgd": 0.1, "adam": 0.0}
    assert step.moved["adam"] == 0
    assert step.moved["sgd"] > 0
    with pytest.raises(UnknownName, match="in this race"):
        race.send({"adamw": 0.1})
    race = race_steps(fresh(), data, optimizers="sgd,adam", steps=5, lr="0.1")
    next(race)
    with pytest.raises(UsageError, match="learning rate of adam"):
        race.send({"adam": -1})


def test_an_early_step_keeps_its_own_plane_and_weights(data):
    steps = list(race_steps(fresh(), data, optimizers="sgd,adam", steps=6, lr="0.1"))
    assert steps[2].plane().paths.shape == (2, 3, 2)
    assert np.isfinite(steps[0].plane().paths).all()
    assert not np.array_equal(steps[2].weights("sgd"), steps[6].weights("sgd"))


def test_one_that_diverges_falls_out_with_its_reason_and_the_others_go_on(data):
    network = nm.load(mlp([64, 6, 10], activation="relu", output="linear", seed=1), shape=(8, 8), loss="squared")
    finding = nm.look("optimizer_race", network, data, optimizers="sgd,adam", lr="sgd=1000,adam=0.01", steps=10)
    assert "fell out at step" in finding.provenance["fell_out"]["seed 0"]["sgd"]
    assert "try 100" in finding.provenance["fell_out"]["seed 0"]["sgd"]
    assert np.isnan(finding.numbers["loss"][0, -1])
    assert np.isnan(finding.numbers["paths"][0, -1]).all()
    assert np.isfinite(finding.numbers["loss"][1]).all()
    assert "fell out" in finding.text()
    assert finding.views[0].to_svg()
    both = nm.look("optimizer_race", network, data, optimizers="sgd,momentum", lr="1000", steps=10)
    assert "Every optimizer fell out" in both.summary
    assert both.numbers["loss"].shape == both.numbers["off"].shape == (2, 11)


@pytest.mark.parametrize(("options", "error", "says"), [
    ({"optimizers": "adam"}, UsageError, "2 to 8"),
    ({"optimizers": "adam,adam"}, UsageError, "twice"),
    ({"optimizers": "adam,sdg"}, UnknownName, "sgd"),
    ({"optimizers": "adam,sgd", "lr": "fast"}, UsageError, "learning rate"),
    ({"optimizers": "adam,sgd", "lr": "adam=-1"}, UsageError, "learning rate"),
    ({"optimizers": "adam,sgd", "lr": "adamw=1"}, UnknownName, "in this race"),
    ({"batch": 101}, UsageError, "fewer than a batch"),
    ({"limit": 10}, UsageError, "fewer than a batch"),
    ({"optimizers": "sparseadam,sgd", "lr": "0.1"}, UsageError, "sparseadam"),
    ({"steps": 10000, "optimizers": "sgd,adam", "lr": "1"}, None, ""),
])  # fmt: skip
def test_bad_options_say_what_to_do(data, options, error, says):
    if error is None:  # long is not bad: it is only refused when it would not fit into memory
        assert Race.of(fresh(), data, "sgd,adam", 10000, 32, 1.0, 0, 0, "own").count == 10000
        return
    with pytest.raises(error, match=says):
        nm.look("optimizer_race", fresh(), data, **options)


def test_bad_networks_and_data_say_what_to_do(data):
    with pytest.raises(UsageError, match="no weights"):
        nm.look("optimizer_race", nm.load(torch.nn.Sequential(torch.nn.Flatten()), shape=(8, 8)), data)
    network = fresh()
    with torch.no_grad():
        next(network.module.parameters())[0, 0] = float("nan")
    with pytest.raises(UsageError, match="at the start is nan"):
        nm.look("optimizer_race", network, data)
    with pytest.raises(DataError, match="outputs"):
        nm.look("optimizer_race", nm.load(mlp([64, 2]), shape=(8, 8)), data)
    big = nm.load(
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 60000), torch.nn.Linear(60000, 10)), shape=(8, 8)
    )
    with pytest.raises(UsageError, match="Take at most"):
        nm.look("optimizer_race", big, data, steps=200)


def test_dropout_draws_the_same_for_all_and_batch_statistics_stay_apart(data):
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(64, 8),
        torch.nn.BatchNorm1d(8),
        torch.nn.Dropout(0.5),
        torch.nn.Linear(8, 10),
    )
    network = nm.load(module, shape=(8, 8))
    state = torch.get_rng_state()
    runs = [list(race_steps(network, data, optimizers="sgd,adam", steps=4, batch=100, lr="0.1")) for _ in range(2)]
    assert runs[0][-1].losses == runs[1][-1].losses
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(module[2].running_mean, torch.zeros(8))
    # From one start the first batch's loss is the same for all, dropout's draws included.
    first = list(race_steps(network, data, optimizers="sgd,asgd", steps=1, batch=50, lr="0.1"))[1]
    assert first.batch_losses["sgd"] == first.batch_losses["asgd"]
    with pytest.raises(UsageError, match="another batch"):  # the last batch of the epoch is a single image
        list(race_steps(network, data, optimizers="sgd,adam", steps=4, batch=33, lr="0.1"))
