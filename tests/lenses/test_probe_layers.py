"""Probes against scikit-learn on codes taken by hand, and their controls."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifier

import neuralmine as nm
from neuralmine.codes import narrow, probe
from neuralmine.errors import UsageError


def test_a_probe_is_scikit_learns_ridge_at_the_strength_that_leaving_one_out_picks():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 60)
    rows = generator.normal(size=(60, 8)) + np.eye(8)[labels] * 1.5
    train, test = rows[:30], rows[30:]
    said = probe(train, labels[:30], test)
    middle, spread = train.mean(0), np.sqrt(((train - train.mean(0)) ** 2).sum(1).mean())
    scaled, targets = (train - middle) / spread, np.where(labels[:30, None] == np.arange(3), 1.0, -1.0)
    errors = {}
    for alpha in 30 * np.logspace(-7, 0, 8):  # leaving one out by really leaving it out
        left = []
        for i in range(30):
            rest = np.arange(30) != i
            x, y = scaled[rest] - scaled[rest].mean(0), targets[rest]
            weights = np.linalg.solve(x.T @ x + alpha * np.eye(8), x.T @ (y - y.mean(0)))
            left.append((scaled[i] - scaled[rest].mean(0)) @ weights + y.mean(0) - targets[i])
        errors[alpha] = np.mean(np.square(left))
    best = min(errors, key=errors.get)
    assert (said == RidgeClassifier(alpha=best).fit(scaled, labels[:30]).predict((test - middle) / spread)).all()


def test_wide_codes_are_turned_without_changing_what_a_probe_sees():
    generator = np.random.default_rng(1)
    wide = generator.normal(size=(40, 900))
    assert narrow(wide).shape == (40, 40)
    assert narrow(wide) @ narrow(wide).T == pytest.approx(wide @ wide.T)
    labels = generator.integers(0, 2, 40)
    wide[:, 0] += 20 * labels
    assert (probe(narrow(wide)[:20], labels[:20], narrow(wide)[20:]) == probe(wide[:20], labels[:20], wide[20:])).all()


def test_a_layer_that_throws_the_class_away_and_one_that_brings_it_out():
    generator = np.random.default_rng(2)
    labels = np.arange(200) % 2
    # The class is whether two signs agree: no line reads it from the input, one does after the products' ReLUs.
    rows = generator.choice([-1.0, 1.0], (200, 3))
    rows[:, 1] = np.where(labels, rows[:, 0], -rows[:, 0])
    hidden, out = torch.nn.Linear(3, 4, bias=False), torch.nn.Linear(4, 3, bias=False)
    with torch.no_grad():
        hidden.weight.copy_(torch.tensor([[1.0, 1, 0], [-1, -1, 0], [1, -1, 0], [-1, 1, 0]]))
        out.weight.zero_()
        out.weight[:, 0] = out.weight[:, 1] = out.weight[:, 2] = out.weight[:, 3] = 1
    module = torch.nn.Sequential(hidden, torch.nn.ReLU(), out)
    data = nm.Dataset("signs", rows, labels, ("other", "same"))
    finding = nm.look("probe_layers", nm.load(module, shape=(3,)), data, limit=200)
    seen = finding.numbers["accuracy"].mean(0)
    assert finding.provenance["layers"] == ["0", "1", "2"]
    assert abs(seen[0] - 0.5) < 0.2
    assert abs(seen[1] - 0.5) < 0.2
    assert seen[2] == 1
    assert abs(seen[3] - 0.5) < 0.2
    assert finding.checks[0].passed
    assert abs(finding.numbers["shuffled_labels"].mean() - 0.5) < 0.1


def test_the_trained_digits_net_beats_its_controls(net, digits):
    finding = nm.look("probe_layers", net, digits)
    assert all(check.passed for check in finding.checks)
    untrained = nm.look("probe_layers", nm.load("digits", trained=False), digits)
    assert not untrained.checks[0].passed
    with pytest.raises(UsageError, match="one class"):
        nm.look("probe_layers", net, digits.take(digits.labels == 3))
