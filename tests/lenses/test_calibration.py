"""calibration: ECE by hand and by loops, what chance alone shows, and a temperature found by trying them all."""

import numpy as np
import pytest
import torch

import neuralmine as nm
from neuralmine.errors import UsageError

CLASSES = ("a", "b", "c")


def saying(scores, labels, loss="cross_entropy"):
    """A network that gives out its input, so that a test can say what the outputs are, and images that are outputs."""
    scores = np.asarray(scores, dtype=float)
    raw = np.log(scores) if loss == "cross_entropy" else scores
    module = torch.nn.Linear(scores.shape[1], scores.shape[1], bias=False).double()
    with torch.no_grad():
        module.weight.copy_(torch.eye(scores.shape[1]))
    network = nm.load(module, shape=(scores.shape[1],), labels=CLASSES[: scores.shape[1]], loss=loss)
    return network, nm.Dataset("said", raw, np.asarray(labels), CLASSES[: scores.shape[1]])


def drawn(count, seed, sharper=1.0):
    """Probabilities, and labels drawn from them; the network says them `sharper` than they are."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 1.7, (count, 3))
    true = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([generator.choice(3, p=row) for row in true])
    said = np.exp(sharper * logits)
    return saying(said / said.sum(1, keepdims=True), labels)


def test_five_images_by_hand():
    scores = [[0.95, 0.03, 0.02], [0.92, 0.05, 0.03], [0.1, 0.7, 0.2], [0.65, 0.3, 0.05], [0.2, 0.2, 0.6]]
    numbers = nm.look("calibration", *saying(scores, [0, 1, 1, 0, 0]), bins=10).numbers
    # (0.9, 1]: 0.95 right, 0.92 wrong; (0.6, 0.7]: 0.7 and 0.65 right; (0.5, 0.6]: 0.6 wrong.
    assert numbers["low"] == pytest.approx([0.5, 0.6, 0.9])
    assert numbers["count"].tolist() == [1, 2, 2]
    assert numbers["confidence"] == pytest.approx([0.6, 0.675, 0.935])
    assert numbers["accuracy"].tolist() == [0, 1, 0.5]
    assert numbers["gap"] == pytest.approx([-0.6, 0.325, -0.435])
    assert numbers["ece"] == pytest.approx((0.6 + 2 * 0.325 + 2 * 0.435) / 5)
    assert numbers["mce"] == pytest.approx(0.6)
    assert numbers["sum"] == pytest.approx(np.ones(5))
    assert numbers["bin"].tolist() == [2, 2, 1, 1, 0]


@pytest.mark.parametrize("bins", [4, 15, 40])
def test_ece_equals_a_loop_over_bins(bins):
    network, data = drawn(300, 5, sharper=2)
    numbers = nm.look("calibration", network, data, bins=bins, draws=20).numbers
    scores = torch.softmax(torch.tensor(data.images), 1).numpy()
    total, worst = 0.0, 0.0
    for m in range(1, bins + 1):
        inside = [i for i, row in enumerate(scores) if (m - 1) / bins < row.max() <= m / bins]
        if inside:
            right = np.mean([scores[i].argmax() == data.labels[i] for i in inside])
            gap = abs(right - np.mean([scores[i].max() for i in inside]))
            total, worst = total + len(inside) / len(scores) * gap, max(worst, gap)
    assert numbers["ece"] == pytest.approx(total, abs=1e-12)
    assert numbers["mce"] == pytest.approx(worst, abs=1e-12)
    assert numbers["part"].sum() == pytest.approx(total, abs=1e-12)


def test_perfect_probabilities_are_within_the_null_and_sharpened_ones_are_not():
    within = [nm.look("calibration", *drawn(400, seed), draws=200).checks[0].passed for seed in range(20)]
    assert sum(within) >= 17  # 95 % of them should be
    for seed in range(3):
        finding = nm.look("calibration", *drawn(400, seed, sharper=4), draws=200)
        assert not finding.checks[0].passed
        assert finding.numbers["null"].min() > 0  # small bins show an error where there is none


def test_the_null_is_the_ece_of_coins_thrown_by_hand():
    network, data = drawn(200, 3)
    null = nm.look("calibration", network, data, draws=3000).numbers["null"]
    sure = torch.softmax(torch.tensor(data.images), 1).numpy().max(1)
    generator, thrown = np.random.default_rng(99), []
    for _ in range(800):
        right = generator.random(200) < sure
        total = 0.0
        for m in range(15):
            inside = (sure > m / 15) & (sure <= (m + 1) / 15)
            if inside.any():
                total += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
        thrown.append(total)
    assert null.mean() == pytest.approx(np.mean(thrown), rel=0.03)
    assert np.quantile(null, 0.95) == pytest.approx(np.quantile(thrown, 0.95), rel=0.06)


@pytest.mark.parametrize("loss", ["cross_entropy", "squared"])
def test_the_temperature_is_the_best_of_a_grid(loss):
    generator = np.random.default_rng(4)
    if loss == "cross_entropy":
        network, data = drawn(600, 1, sharper=2.5)
    else:
        scores = generator.uniform(0.02, 0.98, (600, 3))
        network, data = saying(scores, np.where(generator.random(600) < 0.6, scores.argmax(1), 0), "squared")
    numbers = nm.look("calibration", network, data, draws=20).numbers
    others = np.setdiff1d(np.arange(600), numbers["held_out"])  # what it was fitted on
    assert len(others) == len(numbers["held_out"]) == 300

    def loss_of(which, temperature):
        labels = torch.tensor(data.labels)[which]
        if loss == "cross_entropy":
            return float(torch.nn.functional.cross_entropy(torch.tensor(data.images)[which] / temperature, labels))
        best = torch.tensor(data.images)[which].max(1)
        chance = torch.sigmoid(torch.logit(best.values) / temperature)
        return float(torch.nn.functional.binary_cross_entropy(chance, (best.indices == labels).double()))

    grid = np.geomspace(0.2, 8, 800)
    best = grid[np.argmin([loss_of(others, temperature) for temperature in grid])]
    assert numbers["temperature"] == pytest.approx(best, rel=0.006)
    assert numbers["loss_before"] == pytest.approx(loss_of(numbers["held_out"], 1), abs=1e-9)
    assert numbers["loss_after"] == pytest.approx(loss_of(numbers["held_out"], float(numbers["temperature"])), abs=1e-9)
    if loss == "cross_entropy":
        assert numbers["temperature"] == pytest.approx(2.5, rel=0.25)  # undoes what was done
        assert numbers["ece_after"] < numbers["ece_before"] / 2


def test_sigmoid_outputs_are_taken_as_they_are_and_one_output_is_a_side():
    finding = nm.look("calibration", *saying([[0.9, 0.8, 0.7]] * 5, [0, 0, 1, 0, 0], "squared"))
    assert finding.numbers["sure"] == pytest.approx([0.9] * 5)
    assert finding.numbers["sum"] == pytest.approx([2.4] * 5)
    assert "not normalised" in finding.summary
    assert [check.passed for check in finding.checks if "add up" in check.name] == [None]
    numbers = nm.look("calibration", nm.load("64-1"), nm.datasets.load("digits").only(("0", "1"))).numbers
    assert (numbers["sure"] >= 0.5).all()
    softmax = nm.look("calibration", *drawn(50, 0))
    assert [check.passed for check in softmax.checks if "add up" in check.name] == [True]


def test_what_is_no_confidence_is_refused():
    with pytest.raises(UsageError, match="from 0 to 1"):
        nm.look("calibration", *saying([[3.0, -1.0, 0.5]] * 6, [0] * 6, "squared"))
    with pytest.raises(UsageError, match="too few"):
        nm.look("calibration", *saying([[0.3, 0.3, 0.4]] * 3, [0] * 3))
