"""Training equals a plain torch loop, is repeatable to the bit, resumes exactly, and ends cleanly when it breaks."""

from itertools import pairwise

import numpy as np
import pytest
import torch

import neuralmine as nm
from neuralmine.errors import DataError, UnknownName, UsageError
from neuralmine.networks.catalogue import preset, untrained
from neuralmine.stores import runs

WAYS = {
    "sgd": {"optimizer": "sgd", "lr": 0.3, "batch": 32},
    "momentum": {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "batch": 50},
    "adam": {"optimizer": "adam", "lr": 0.01, "batch": 64},
    "gradient_descent": {"optimizer": "gradient_descent", "lr": 2.0},
    "one_weight": {"optimizer": "one_weight_at_a_time", "lr": 32.0},
    "moved and averaged": {"optimizer": "adam", "lr": 0.01, "batch": 64, "shift": 1.0, "rotate": 8.0, "scale": 0.1, "average": 0.9, "schedule": "cosine"},
}  # fmt: skip


@pytest.fixture(scope="module")
def parts():
    return nm.datasets.load("digits").take(slice(0, 300)).split(0.25, 0)


def fresh(name="64-10", seed=0):
    return untrained(preset(name), seed)


def weights(network):
    return {name: p.detach().clone() for name, p in network.module.named_parameters()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("way", list(WAYS))
def test_the_same_seed_gives_the_same_weights_to_the_bit(way, parts):
    ends = []
    for _ in range(2):
        network = fresh()
        for _step in nm.train(network, parts[0], epochs=2, seed=4, **WAYS[way]):
            pass
        ends.append(weights(network))
    assert same(*ends)


@pytest.mark.parametrize(("way", "made"), [
    ("sgd", lambda p: torch.optim.SGD(p, lr=0.3)),
    ("momentum", lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)),
    ("adam", lambda p: torch.optim.Adam(p, lr=0.01)),
    ("gradient_descent", lambda p: torch.optim.SGD(p, lr=2.0)),
])  # fmt: skip
def test_training_equals_a_plain_torch_loop(way, made, parts):
    network, twin = fresh("64-16-10"), fresh("64-16-10")
    for _step in nm.train(network, parts[0], epochs=2, seed=3, **WAYS[way]):
        pass
    images = torch.tensor(parts[0].images, dtype=torch.float64)
    ideal = torch.eye(10, dtype=torch.float64)[torch.tensor(parts[0].labels)]
    optimizer, count = made(twin.module.parameters()), len(images)
    size = count if way == "gradient_descent" else WAYS[way]["batch"]
    for epoch in range(2):
        order = np.random.default_rng([3, epoch]).permutation(count)
        for start in range(0, count, size):
            which = order[start : start + size]
            optimizer.zero_grad()
            ((twin.module(images[which]) - ideal[which]) ** 2).sum(1).mean().backward()
            optimizer.step()
    for name, value in weights(network).items():
        assert torch.allclose(value, weights(twin)[name], atol=1e-12), name


def test_one_step_of_sgd_moves_each_weight_by_rate_times_slope(parts):
    network = fresh()
    before = weights(network)
    images = torch.tensor(parts[0].images, dtype=torch.float64)
    ideal = torch.eye(10, dtype=torch.float64)[torch.tensor(parts[0].labels)]
    loss = ((network.module(images) - ideal) ** 2).sum(1).mean()
    slopes = dict(zip(before, torch.autograd.grad(loss, list(network.module.parameters())), strict=True))
    training = nm.train(network, parts[0], optimizer="gradient_descent", lr=0.7, epochs=5, pace="update")
    next(training), next(training)
    for name, value in weights(network).items():
        assert torch.allclose(value - before[name], -0.7 * slopes[name], atol=1e-7)


@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize("stop", [0, 1, 7])
def test_a_run_stopped_anywhere_goes_on_as_if_it_had_not(way, stop, parts, tmp_path):
    whole = fresh()
    for _step in nm.train(
        whole, parts[0], epochs=9 if way == "gradient_descent" else 3, seed=2, pace="update", **WAYS[way]
    ):
        if way == "one_weight" and _step.index >= 700:
            break
    network = fresh()
    for step in nm.train(
        network, parts[0], epochs=9 if way == "gradient_descent" else 3, seed=2, pace="update", **WAYS[way]
    ):
        if step.index == stop:
            runs.save_state(tmp_path, step.capture())
            break
    resumed = fresh(seed=99)
    state = runs.state_at(tmp_path, stop)
    seen = []
    for step in nm.train(resumed, parts[0], start=state, **state["settings"]):
        seen.append(step.index)
        if way == "one_weight" and step.index >= 700:
            break
    assert seen[0] == stop + 1
    assert same(weights(whole), weights(resumed))


def test_a_step_between_two_checkpoints_is_computed_again_also_after_a_change(parts, tmp_path, monkeypatch):
    said = {
        "data": {"name": "digits", "test": 0.25, "seed": 0, "classes": None},
        "architecture": {"name": "mlp", "sizes": [64, 10]}, "loss": "squared", "classes": list("0123456789"),
        "shape": [8, 8], "settings": {"lr": 0.3, "batch": 100},
    }  # fmt: skip
    path = runs.create(said, tmp_path)
    network, data = runs.empty_network(path), runs.data_parts(said)[0]
    training, truth, change = nm.train(network, data, lr=0.3, batch=100, epochs=9, pace="update"), {}, None
    while len(truth) < 26:
        step = training.send(change)
        change = None
        truth[step.index] = weights(network)
        if step.index % 10 == 0:
            runs.record(path, step)
        if step.index == 13:
            change = {"lr": 0.05}
            runs.append(path, {"index": 13, "changed": change})
        if step.index == 20:
            runs.record(path, step)
    for index in (5, 10, 12, 13, 14, 19, 20):
        assert same(weights(runs.load_network(path, index)), truth[index]), index


def test_the_caller_can_change_the_rate_while_it_trains(parts):
    training = nm.train(fresh(), parts[0], lr=0.5, batch=50, epochs=5)
    next(training)
    rates = [training.send({"lr": 0.25}).metrics["lr"], next(training).metrics["lr"]]
    assert rates == [0.25, 0.25]
    with pytest.raises(UnknownName, match="'lr'"):
        training.send({"lrr": 1})


def test_an_exploding_loss_ends_the_run_with_the_last_good_weights(parts):
    torch.manual_seed(0)
    network = nm.load(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)), shape=(8, 8))
    steps = list(nm.train(network, parts[0], lr=1e5, batch=20, epochs=50))
    last = steps[-1]
    assert last.last
    assert last.trouble[0].name in ("exploding loss", "not a number")
    assert last.trouble[0].stops
    assert last.trouble[0].advice
    assert all(torch.isfinite(p).all() for p in network.module.parameters())


def test_not_a_number_at_the_start_is_named(parts):
    network = fresh()
    with torch.no_grad():
        next(network.module.parameters()).fill_(float("nan"))
    (only,) = list(nm.train(network, parts[0], epochs=3))
    assert only.trouble[0].name == "not a number"


def test_dead_outputs_are_counted_and_explained():
    train = nm.datasets.load("digits").split()[0]
    *_, last = nm.train(fresh(), train, lr=1.0, momentum=0.9, batch=1, epochs=2)
    assert last.metrics["dead_outputs"] >= 3
    assert last.trouble[0].name == "dead outputs"
    assert "rate" in last.trouble[0].advice


def test_full_batch_descent_is_monotone_below_the_limit_and_diverges_above(parts):
    # Logistic regression is convex; the curvature of its loss is at most a quarter of X's largest singular value squared, an image.
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10).double())
    linear = module[1]
    images = torch.tensor(parts[0].images, dtype=torch.float64).flatten(1)
    ones = torch.cat([images, torch.ones(len(images), 1, dtype=torch.float64)], 1)
    steepest = 0.5 * float(torch.linalg.matrix_norm(ones, 2)) ** 2 / len(images)
    start = [p.detach().clone() for p in linear.parameters()]
    network = nm.load(module, shape=(8, 8))

    def losses(rate):
        with torch.no_grad():
            for parameter, value in zip(linear.parameters(), start, strict=True):
                parameter.copy_(value)
        return [
            s.metrics["loss"] for s in nm.train(network, parts[0], optimizer="gradient_descent", lr=rate, epochs=60)
        ]

    below, above = losses(1.9 / steepest), losses(60 / steepest)
    assert all(after <= before for before, after in pairwise(below))
    assert any(after > before for before, after in pairwise(above))


@pytest.mark.parametrize(("settings", "error"), [
    ({"lr": -1}, UsageError), ({"epochs": 0}, UsageError), ({"batch": 2.5}, UsageError), ({"pace": "hour"}, UnknownName),
    ({"optimizer": "sdg"}, UnknownName), ({"learning_rate": 1}, UnknownName),
])  # fmt: skip
def test_settings_that_cannot_be_are_refused(settings, error, parts):
    with pytest.raises(error):
        list(nm.train(fresh(), parts[0], **settings))


def test_data_with_more_classes_than_outputs_are_refused(parts):
    with pytest.raises(DataError, match="outputs"):
        nm.train(fresh("64-2"), parts[0])


def test_early_stopping_ends_with_the_best_weights_of_a_made_up_sequence(parts, monkeypatch):
    import neuralmine.training as training

    losses = iter([9.0, 5.0, 4.0, 4.5, 3.0, 3.2, 3.0, 3.1, 2.0, 1.0])  # epoch 4 is the best; 3 in vain, then it ends
    real, kept = training._Run.measure, {}

    def measured(run):
        metrics = real(run)
        if run.seen == 0 and run.epoch not in kept:
            kept[run.epoch] = (weights(run.network), next(losses))
        return {**metrics, "validation_loss": kept[run.epoch][1]}

    monkeypatch.setattr(training._Run, "measure", measured)
    network = fresh()
    steps = list(nm.train(network, parts[0], batch=64, lr=0.3, epochs=30, validation=0.2, patience=3))
    assert [step.epoch for step in steps] == list(range(8))
    assert steps[-1].last
    assert not any(step.last for step in steps[:-1])
    assert steps[-1].metrics["best_epoch"] == 4
    assert same(weights(network), kept[4][0])


def test_images_kept_aside_are_never_trained_on_and_the_rest_is_trained_plainly(parts):
    network, twin = fresh(), fresh()
    for step in nm.train(network, parts[0], batch=32, lr=0.3, epochs=2, seed=5, validation=0.2):  # noqa: B007
        pass
    count = len(parts[0])
    order = np.random.default_rng([5, 2]).permutation(count)
    aside, rest = np.sort(order[: round(0.2 * count)]), np.sort(order[round(0.2 * count) :])
    assert set(aside).isdisjoint(rest)
    for _step in nm.train(twin, parts[0].take(rest), batch=32, lr=0.3, epochs=2, seed=5):
        pass
    assert same(weights(network), weights(twin))
    with torch.no_grad():
        output = twin.module(torch.tensor(parts[0].images[aside], dtype=torch.float64))
    ideal = torch.eye(10)[torch.tensor(parts[0].labels[aside])]
    assert step.metrics["validation_loss"] == pytest.approx(float(((output - ideal) ** 2).sum(1).mean()))


def test_early_stopping_goes_on_exactly_where_it_was(parts, tmp_path):
    settings = {"batch": 32, "lr": 3.0, "epochs": 40, "validation": 0.2, "patience": 2, "seed": 1}
    whole, network, resumed = fresh(), fresh(), fresh(seed=9)
    ends = [step.epoch for step in nm.train(whole, parts[0], **settings)]
    assert ends[-1] < 40
    for step in nm.train(network, parts[0], **settings):
        if step.epoch == ends[-2]:
            runs.save_state(tmp_path, step.capture())
            at = step.index
            break
    state = runs.state_at(tmp_path, at)
    assert [step.epoch for step in nm.train(resumed, parts[0], start=state, **state["settings"])] == ends[-1:]
    assert same(weights(whole), weights(resumed))


@pytest.mark.parametrize(("settings", "words"), [
    ({"patience": 3}, "not trained on"),
    ({"patience": 3, "validation": 0.2, "average": 0.9}, "averaging both"),
    ({"validation": 0.001}, "of 225 images is 0"),
])  # fmt: skip
def test_early_stopping_says_what_it_needs(settings, words, parts):
    with pytest.raises(UsageError, match=words):
        list(nm.train(fresh(), parts[0], epochs=1, **settings))


def test_schedules_are_the_rates_they_say(parts):
    rates = {}
    for schedule in ("step", "warmup"):
        steps = nm.train(
            fresh(), parts[0].take(slice(0, 100)), lr=1.0, batch=10, epochs=4, schedule=schedule, pace="update"
        )
        rates[schedule] = [step.metrics["lr"] for step in steps if "lr" in step.metrics]
    # The rate beside a step is the next one's: after 20 of 40 updates a tenth, after 30 a hundredth.
    assert rates["step"] == [1.0] * 19 + [0.1] * 10 + [0.01] * 11
    assert rates["warmup"][:2] == pytest.approx([0.5, 0.75])
    assert max(rates["warmup"]) == pytest.approx(1.0, abs=0.01)
    assert rates["warmup"][21] == pytest.approx(0.5, abs=1e-9)  # half way down: 22 of 4 … 40
    assert rates["warmup"][-1] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", ["squared", "cross_entropy"])
def test_label_smoothing_is_torchs(name, parts):
    from neuralmine.losses import mean_loss

    output, labels = torch.randn(7, 4, generator=torch.Generator().manual_seed(0)), torch.arange(7) % 4
    wanted = 0.8 * torch.eye(4)[labels] + 0.2 / 4
    theirs = {
        "squared": 4 * torch.nn.functional.mse_loss(output, wanted),
        "cross_entropy": torch.nn.functional.cross_entropy(output, labels, label_smoothing=0.2),
    }[name]
    assert float(mean_loss(name, output, labels, 0.2)) == pytest.approx(float(theirs), rel=1e-6)
