"""Areas under the ROC curve against scikit-learn, unit by unit, and the null against labels shuffled by hand."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import neuralmine as nm
from neuralmine.errors import UsageError


def test_every_area_is_scikit_learns(net, digits):
    some = digits.take(slice(0, 300))
    seen = nm.look("concept_neurons", net, some, layer="hidden1", shuffles=20).numbers
    inputs = net.encode(some.images)
    hidden = net.module.hidden1(inputs.flatten(1)).detach().numpy()
    assert seen["auc"].shape == (16, 10)
    for unit in range(16):
        for label in range(10):
            assert seen["auc"][unit, label] == pytest.approx(roc_auc_score(some.labels == label, hidden[:, unit]))


def convolutional(count=70, seed=0):
    torch.manual_seed(seed)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), torch.nn.ReLU(inplace=True), torch.nn.Flatten())
    generator = np.random.default_rng(seed)
    pictures = generator.uniform(0, 0.5, (count, 8, 8, 3)).round(1).astype(np.float32)
    labels = generator.integers(0, 3, count)
    pictures[labels == 2, 2:5, 2:5, 0] = 1
    return module, nm.load(module, shape=(3, 8, 8)), nm.Dataset("dots", pictures, labels, ("a", "b", "red", "absent"))


def test_maps_count_by_their_highest_value_ties_and_all():
    module, net, data = convolutional()
    seen = nm.look("concept_neurons", net, data, layer="1", shuffles=20).numbers
    maps = module(torch.tensor(data.images.transpose(0, 3, 1, 2))).detach().numpy().reshape(70, 5, 6, 6)
    highest = maps.max(axis=(2, 3))
    assert any((highest[:, unit] == 0).sum() > 1 for unit in range(5)), "some are tied"
    assert seen["classes"].tolist() == [0, 1, 2]
    for unit in range(5):
        for label in range(3):
            wanted = roc_auc_score(data.labels == label, highest[:, unit])
            assert seen["auc"][unit, label] == pytest.approx(wanted, abs=1e-6)


def test_the_null_is_the_best_of_all_units_on_shuffled_labels():
    module, net, data = convolutional()
    seen = nm.look("concept_neurons", net, data, layer="0", shuffles=25, seed=3).numbers
    maps = module[0](torch.tensor(data.images.transpose(0, 3, 1, 2))).detach().numpy().max(axis=(2, 3))
    generator = np.random.default_rng(3)
    for row in seen["null"]:
        order = generator.permutation(70)
        shuffled = data.labels[order]
        for label in range(3):
            by_hand = max(roc_auc_score(shuffled == label, maps[:, unit]) for unit in range(5))
            assert row[label] == pytest.approx(by_hand, abs=1e-6)
    assert seen["bar"] == pytest.approx(np.percentile(seen["null"], 95, axis=0))


def test_a_planted_unit_is_found_and_noise_is_not():
    module = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Linear(20, 2))
    generator = np.random.default_rng(4)
    labels = generator.integers(0, 2, 120)
    values = generator.uniform(0, 1, (120, 20))
    classes = ("no", "yes")
    net = nm.load(module, shape=(20,))
    noise = nm.look("concept_neurons", net, nm.Dataset("noise", values, labels, classes), layer="0")
    assert not noise.checks[0].passed
    assert float(noise.numbers["auc"].max()) > 0.55, "the best of many is good by chance"
    values[:, 13] = 0.1 * values[:, 13] + 0.9 * labels
    planted = nm.look("concept_neurons", net, nm.Dataset("planted", values, labels, classes), layer="0", limit=3)
    assert planted.checks[0].passed
    assert planted.numbers["best"][1] == 13
    assert planted.numbers["auc"][13].tolist() == [0, 1]
    assert planted.views[0].rows[3][:3] == ("yes", 13, 1.0)
    assert len(planted.views[0].rows) == 6


def test_one_class_is_refused(net, digits):
    with pytest.raises(UsageError, match="one class"):
        nm.look("concept_neurons", net, digits.take(digits.labels == 3))
