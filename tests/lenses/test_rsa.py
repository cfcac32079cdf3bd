"""Dissimilarities and their rank correlations against scipy, layer by layer, and what must and must not be found."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr

import neuralmine as nm
from neuralmine import codes
from neuralmine.errors import NetworkError, UsageError


def seeing(seed=0, count=40):
    torch.manual_seed(seed)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 5, 3), torch.nn.ReLU(inplace=True), torch.nn.Dropout(0.5), torch.nn.Flatten(), torch.nn.Linear(180, 4)
    )  # fmt: skip
    generator = np.random.default_rng(seed)
    pictures = generator.uniform(0, 1, (count, 8, 8, 3)).astype(np.float32)
    return (
        module.eval(),
        nm.load(module, shape=(3, 8, 8)),
        nm.Dataset("noise", pictures, np.arange(count) % 4, tuple("abcd")),
    )


def by_hand(module, data):
    values, found = torch.tensor(data.images.transpose(0, 3, 1, 2)), {}
    with torch.no_grad():
        for name, part in module.named_children():
            values = part(values.clone())
            found[name] = values.flatten(1).numpy().astype(np.float64)
    return found


@pytest.mark.parametrize("measure", ["correlation", "cosine", "euclidean"])
def test_every_correlation_is_scipys(measure):
    module, net, data = seeing()
    finding = nm.look("rsa", net, data, measure=measure, shuffles=20)
    seen = finding.numbers
    layers = by_hand(module, data)
    # Dropout and flatten pass on what they get: no layers of their own.
    assert finding.provenance["layers"] == ["0", "1", "4"]
    rows = [data.images.reshape(40, -1).astype(np.float64), layers["0"], layers["1"], layers["4"]]
    pairs = [pdist(one, measure) for one in rows]
    wanted = pdist(data.labels[:, None], lambda a, b: float(a[0] != b[0]))
    assert seen["category"] == pytest.approx([spearmanr(one, wanted)[0] for one in pairs], abs=1e-6)
    assert seen["input"] == pytest.approx([spearmanr(one, pairs[0])[0] for one in pairs], abs=1e-6)
    assert seen["between"][1, 3] == pytest.approx(spearmanr(pairs[1], pairs[3])[0], abs=1e-6)
    whole = np.zeros((40, 40))
    whole[np.triu_indices(40, 1)] = pairs[3]
    whole += whole.T
    for a in range(4):
        for b in range(4):
            cells = [
                whole[i, j]
                for i in range(40)
                for j in range(40)
                if i != j and data.labels[i] == a and data.labels[j] == b
            ]
            assert seen["classes"][3, a, b] == pytest.approx(np.mean(cells), rel=1e-5)


def test_a_code_of_the_class_alone_reaches_the_ceiling_and_noise_does_not_leave_chance():
    labels = np.arange(30) % 3
    perfect = np.eye(3)[labels] + np.random.default_rng(0).normal(0, 1e-3, (30, 3))
    data = nm.Dataset("codes", perfect, labels, tuple("abc"))
    net = nm.load(torch.nn.Sequential(torch.nn.Linear(3, 3)), shape=(3,))
    seen = nm.look("rsa", net, data, measure="euclidean", shuffles=100).numbers
    assert seen["category"][0] == pytest.approx(float(seen["ceiling"]), abs=1e-9)
    _, net, noise = seeing(count=80)
    chance = nm.look("rsa", net, noise, shuffles=200).numbers
    assert (np.abs(chance["category"]) < 3 * chance["null"].std(0)).all()
    assert (chance["null"].mean(0) < 0.01).all()


def test_training_is_seen_and_weights_shuffled_are_not(net, digits):
    finding = nm.look("rsa", net, digits, shuffles=20)
    seen = finding.numbers
    assert (np.diff(seen["category"]) > 0).all()
    assert seen["category"][-1] > seen["category_shuffled"][1:].max() + 0.1
    assert all(check.passed for check in finding.checks)
    untrained = nm.look("rsa", nm.load("digits", trained=False), digits, shuffles=20)
    assert not untrained.checks[0].passed


def test_what_cannot_be_compared_is_refused(net, digits):
    with pytest.raises(UsageError, match="one class"):
        nm.look("rsa", net, digits.take(digits.labels == 3))
    with pytest.raises(NetworkError, match="three numbers"):
        nm.look("rsa", nm.load(torch.nn.Sequential(torch.nn.Flatten()), shape=(8, 8)), digits)


def test_few_layers_are_held_at_a_time_and_give_the_same(monkeypatch):
    _, net, data = seeing()
    whole = nm.look("rsa", net, data, shuffles=20).numbers
    monkeypatch.setattr(codes, "MEMORY", 1)
    again = nm.look("rsa", net, data, shuffles=20).numbers
    assert np.array_equal(whole["category"], again["category"])
    few = nm.look("rsa", net, data, layers=2, shuffles=20)
    assert few.provenance["layers"] == ["0", "4"]


def test_a_code_without_variation_is_no_nearer_to_any_other():
    rows = np.array([[1.0, 1.0, 1.0], [1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    assert codes.dissimilarity(rows).tolist() == pytest.approx([1, 1, 2])
    assert codes.rank_correlation(np.ones(5), np.arange(5.0)) == 0
