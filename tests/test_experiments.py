"""Experiments: nested parts, pairs that differ in one thing, and ingredients that are what torch does by hand."""

import copy

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestCentroid

import neuralmine as nm
from neuralmine.architectures.inserted import with_batch_norm, with_dropout
from neuralmine.architectures.mlp import Dropout, mlp
from neuralmine.errors import UnknownName, UsageError
from neuralmine.experiments import Ablation, Scaling, begun, nearest_centroid, stratified
from neuralmine.intervals import best_of
from neuralmine.lens import weights_hash
from neuralmine.lenses.data_scaling import power_law
from neuralmine.lenses.training_ablation import told


@pytest.fixture(scope="module")
def data():
    return nm.datasets.load("digits").take(slice(0, 240))


def net(**more):
    return nm.load(mlp([64, 8, 10], seed=3, **more), shape=(8, 8), loss="squared")


def test_beginnings_of_the_order_hold_the_classes_in_their_proportions(data):
    labels = data.labels
    order = stratified(labels, 4)
    assert sorted(order) == list(range(len(labels)))
    for size in (20, 57, 111):
        counts = np.bincount(labels[order[:size]], minlength=10)
        assert np.abs(counts - size * np.bincount(labels) / len(labels)).max() <= 1
    assert (stratified(labels, 5) != order).any()


def test_nearest_mean_image_is_scikit_learns(data):
    generator = np.random.default_rng(0)
    images = data.images + generator.normal(0, 0.3, data.images.shape)  # and no pixel is the same in a whole class
    train, test = nm.Dataset("noisy", images, data.labels, data.classes).split(0.25, 1)
    theirs = NearestCentroid().fit(train.images.reshape(len(train), -1), train.labels)
    assert nearest_centroid(train, test) == pytest.approx(theirs.score(test.images.reshape(len(test), -1), test.labels))


def test_a_point_of_the_curve_is_a_training_of_ones_own_on_a_nested_part(data):
    network = net()
    before = weights_hash(network)
    work = Scaling.of(network, data, 3, 20, 2, 5, 0.25, 30, optimizer="adam", lr=0.02, batch=16)
    shares = list(work.steps())
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert weights_hash(network) == before
    train, test = data.split(0.25, 6)  # the second seed, the middle size
    size, order = int(work.sizes[1]), stratified(train.labels, 6)
    part = train.take(order[:size])
    mine = nm.load(begun(network.module, 6), shape=(8, 8), loss="squared")
    epochs = -(-30 // -(-size // 16))
    for _ in nm.train(mine, part, optimizer="adam", lr=0.02, batch=16, epochs=epochs, seed=6):
        pass
    with torch.no_grad():
        said = mine.module(torch.tensor(test.images, dtype=torch.float64)).argmax(1).numpy()
    assert work.accuracy[1, 1] == pytest.approx((said == test.labels).mean())
    assert work.chance == pytest.approx(np.bincount(data.labels).max() / len(data))


def test_a_power_law_is_recovered_and_its_interval_holds_the_slope():
    sizes = np.geomspace(20, 5000, 8)
    law = power_law(sizes, 2.0 * sizes**-0.6)
    assert (law.a, law.b, law.c) == pytest.approx((2.0, 0.6, 0.0), abs=1e-9)
    assert law.r2 == pytest.approx(1)
    floored = power_law(sizes, 2.0 * sizes**-0.8 + 0.03)
    assert (floored.a, floored.b, floored.c) == pytest.approx((2.0, 0.8, 0.03), rel=1e-3)
    # One mistake less is left out, not put to a made-up place.
    assert power_law(sizes, np.where(sizes > 4000, 0, 2.0 * sizes**-0.6)).b == pytest.approx(0.6)


def test_the_interval_of_the_slope_holds_the_truth(data):
    from neuralmine.lenses.data_scaling import told as scaled

    inside = 0
    for k in range(20):
        work = Scaling.of(net(), data, 6, 20, 12, 0, 0.25, 1, optimizer="adam", lr=0.02, batch=16)
        generator = np.random.default_rng(k)
        truth = 1.5 * work.sizes**-0.5
        work.accuracy = 1 - truth * np.exp(generator.normal(0, 0.15, work.accuracy.shape))
        work.train_accuracy, work.centroid = work.accuracy, work.accuracy * 0.9
        finding = scaled(work, 200)
        low, high = finding.numbers["b_interval"]
        inside += low <= 0.5 <= high
    assert inside >= 15  # 95 % of many; twelve seeds make the bootstrap a little narrow
    assert "Extrapolated" in finding.summary
    assert [row[0] for row in finding.views[1].rows[-2:]] == [f"{n * work.sizes[-1]} (extrapolated)" for n in (2, 10)]


def test_pairs_share_split_start_and_batches_and_differ_in_one_thing(data):
    work = Ablation.of(net(), data, "weight_decay,cosine", 2, 7, 0.25, 90, optimizer="sgd", lr=0.5, batch=16, epochs=3)
    for _ in work.steps():
        pass
    assert work.names == ("plain", "plain again", "weight_decay", "cosine")
    train, test = data.split(0.25, 8)
    part = train.take(stratified(train.labels, 8)[:90])
    images = torch.tensor(part.images, dtype=torch.float64)
    wanted = torch.eye(10, dtype=torch.float64)[torch.tensor(part.labels)]
    for row, decay, seed in ((0, 0.0, 8), (2, 0.001, 8), (1, 0.0, 8 + 1_000_003)):
        module = begun(net().module, 8)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.5, weight_decay=decay)
        for epoch in range(3):
            order = np.random.default_rng([seed, epoch]).permutation(90)
            for low in range(0, 90, 16):
                optimizer.zero_grad()
                which = order[low : low + 16]
                ((module(images[which]) - wanted[which]) ** 2).sum(1).mean().backward()
                optimizer.step()
        with torch.no_grad():
            out = module(torch.tensor(test.images, dtype=torch.float64))
        assert work.accuracy[row, 1] == pytest.approx(float((out.argmax(1).numpy() == test.labels).mean()))
        assert work.loss[row, 1] == pytest.approx(
            float(((out - torch.eye(10)[torch.tensor(test.labels)]) ** 2).sum(1).mean()), abs=1e-9
        )


def test_the_table_is_the_arithmetic_of_pairs(data):
    from scipy import stats

    work = Ablation.of(
        net(), data, "weight_decay,cosine,step", 6, 0, 0.25, 0, optimizer="sgd", lr=1.0, batch=16, epochs=1
    )
    work.accuracy = np.random.default_rng(1).uniform(0.8, 0.82, (5, 6))
    work.accuracy[3] += 0.1  # cosine helps
    work.epochs[:] = 1
    finding = told(work)
    away = work.accuracy[2:] - work.accuracy[0]
    widened = away.std(1, ddof=1) * np.sqrt(1 / 6 + 60 / 180)
    half = stats.t.ppf(0.975, 5) * widened
    assert finding.numbers["difference"] == pytest.approx(away.mean(1))
    assert finding.numbers["interval"] == pytest.approx(np.stack([away.mean(1) - half, away.mean(1) + half], 1))
    p = 2 * stats.t.sf(np.abs(away.mean(1)) / widened, 5)
    assert finding.numbers["p"] == pytest.approx(p)
    assert finding.numbers["p_holm"].min() == pytest.approx(3 * p.min())
    words = {row[0]: row[-1] for row in finding.views[1].rows}
    assert (words["weight_decay"], words["cosine"], words["step"]) == ("within noise", "helps", "within noise")
    assert "best of 5 runs" in finding.checks[1].meaning


def test_what_does_not_fit_is_left_out_with_its_reason(data):
    flat = nm.load(mlp([64, 10], seed=0), shape=(64,), loss="squared")
    rows = data.take(slice(None))
    rows = nm.Dataset("rows", rows.images.reshape(len(rows), 64), rows.labels, rows.classes)
    work = Ablation.of(flat, rows, "", 2, 0, 0.25, 0, optimizer="sgd", lr=1.0, batch=16, epochs=1)
    assert set(work.left_out) == {"dropout", "batch_norm", "augmentation"}
    with pytest.raises(UsageError, match="None of these"):
        Ablation.of(flat, rows, "dropout", 2, 0, 0.25, 0, optimizer="sgd", lr=1.0, batch=16, epochs=1)
    with pytest.raises(UnknownName, match="cosine"):
        Ablation.of(flat, rows, "cosin", 2, 0, 0.25, 0, optimizer="sgd", lr=1.0, batch=16, epochs=1)
    with pytest.raises(UsageError, match="no curve"):
        Scaling.of(flat, rows, 3, 500, 2, 0, 0.25, 10, optimizer="sgd", lr=1.0, batch=16)


def test_the_best_of_many_equals_what_drawing_them_gives():
    draws = np.random.default_rng(0).binomial(450, 0.95, (40_000, 20)).max(1) / 450
    assert best_of(0.95, 450, 20) == pytest.approx(draws.mean(), abs=2e-4)


def test_batch_norm_put_in_trains_as_torch_does_by_hand(data):
    network = nm.load(with_batch_norm(net().module), shape=(8, 8), loss="squared")
    built = nm.load(mlp([64, 8, 10], seed=3, batch_norm=True), shape=(8, 8), loss="squared")
    module = copy.deepcopy(built.module)
    for one in (network, built):
        for _ in nm.train(one, data, optimizer="sgd", lr=0.3, batch=48, epochs=3, seed=2):
            pass
    images = torch.tensor(data.images, dtype=torch.float64)
    wanted = torch.eye(10, dtype=torch.float64)[torch.tensor(data.labels)]
    optimizer, mean, spread = torch.optim.SGD(module.parameters(), lr=0.3), torch.zeros(8), torch.ones(8)
    for epoch in range(3):
        order = np.random.default_rng([2, epoch]).permutation(240)
        for low in range(0, 240, 48):
            which = order[low : low + 48]
            sums = module.hidden1.sum(images[which].flatten(1))
            norm = module.hidden1.norm
            squared = ((sums - sums.mean(0)) ** 2).mean(0)
            hidden = torch.sigmoid((sums - sums.mean(0)) / torch.sqrt(squared + 1e-5) * norm.weight + norm.bias)
            mean = 0.9 * mean + 0.1 * sums.mean(0).detach()
            spread = 0.9 * spread + 0.1 * squared.detach() * 48 / 47
            optimizer.zero_grad()
            ((module.output(hidden) - wanted[which]) ** 2).sum(1).mean().backward()
            optimizer.step()
    for name, value in module.named_parameters():
        assert torch.allclose(dict(built.module.named_parameters())[name], value, atol=1e-10), name
    assert torch.allclose(built.module.hidden1.norm.running_mean, mean, atol=1e-10)
    assert torch.allclose(built.module.hidden1.norm.running_var, spread, atol=1e-10)
    network.module.eval(), built.module.eval()
    assert torch.allclose(network.module(images), built.module(images), atol=1e-12)
    alone = built.module(images[:1])  # eval mode: an image's output does not depend on the others
    assert torch.allclose(alone, built.module(images)[:1], atol=1e-12)


def test_dropout_put_in_trains_as_masks_by_hand(data):
    module = with_dropout(net().module, 0.4)
    network, twin = nm.load(module, shape=(8, 8), loss="squared"), net().module
    assert not any(isinstance(part, Dropout) for part in twin.modules())
    for _ in nm.train(network, data, optimizer="sgd", lr=0.3, batch=48, epochs=2, seed=2):
        pass
    images = torch.tensor(data.images, dtype=torch.float64)
    wanted = torch.eye(10, dtype=torch.float64)[torch.tensor(data.labels)]
    optimizer, generator, index = torch.optim.SGD(twin.parameters(), lr=0.3), torch.Generator(), 0
    place = next(i for i, part in enumerate(module.modules()) if isinstance(part, Dropout))
    for epoch in range(2):
        order = np.random.default_rng([2, epoch]).permutation(240)
        for low in range(0, 240, 48):
            generator.manual_seed(hash((2, index, place)) & 0x7FFF_FFFF)
            hidden = twin.hidden1(images[order[low : low + 48]].flatten(1))
            mask = (torch.rand(hidden.shape, generator=generator, dtype=torch.float64) >= 0.4) / 0.6
            optimizer.zero_grad()
            ((twin.output(hidden * mask) - wanted[order[low : low + 48]]) ** 2).sum(1).mean().backward()
            optimizer.step()
            index += 1
    network.module.eval()
    assert torch.allclose(network.module(images), twin(images), atol=1e-10)  # and eval mode drops nothing
    with pytest.raises(UsageError, match="has it already"):
        with_dropout(module, 0.4)


def test_torchs_own_dropout_gets_a_generator_so_that_runs_are_pairs():
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Dropout(0.3), torch.nn.Linear(3, 2))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, again = begun(module, 5), begun(module, 5)
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(first[2], Dropout)
    assert first[2].p == 0.3
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first[0].weight, begun(module, 6)[0].weight)
