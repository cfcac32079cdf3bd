"""Activations and slopes against formulas written by hand and central differences; saturation by counting."""

import math

import numpy as np
import pytest

import neuralmine as nm
from neuralmine.architectures import build
from neuralmine.networks.torch_module import network_of

BY_HAND = {
    "sigmoid": lambda z: 1 / (1 + math.exp(-z)),
    "tanh": math.tanh,
    "relu": lambda z: max(z, 0.0),
    "leaky_relu": lambda z: z if z > 0 else 0.01 * z,
    "gelu": lambda z: z * 0.5 * (1 + math.erf(z / math.sqrt(2))),
    "identity": lambda z: z,
}


@pytest.fixture(scope="module")
def seen():
    network = network_of(build({"sizes": [2, 4, 1], "activation": "tanh", "seed": 1}), shape=(2,), loss="squared")
    data = nm.datasets.load("spirals")
    return network, data, nm.look("activation_functions", network, data)


def test_values_and_slopes(seen):
    finding = seen[2]
    names, sums = finding.provenance["functions"], finding.numbers["sums"]
    assert set(names) == set(BY_HAND)
    for name, values, slopes in zip(names, finding.numbers["values"], finding.numbers["slopes"], strict=True):
        by_hand = BY_HAND[name]
        assert np.allclose(values, [by_hand(z) for z in sums], atol=1e-12)
        central = [(by_hand(z + 1e-5) - by_hand(z - 1e-5)) / 2e-5 for z in sums]
        assert np.abs(slopes - central).max() < 1e-6
    assert finding.checks[0].passed


def test_tanh_is_centred_and_sigmoid_is_not(seen):
    finding = seen[2]
    mean = dict(zip(finding.provenance["functions"], finding.numbers["centred_mean"], strict=True))
    assert abs(mean["tanh"]) < 1e-9
    assert abs(mean["sigmoid"] - 0.5) < 1e-9
    assert mean["relu"] == pytest.approx(1 / math.sqrt(2 * math.pi), rel=1e-2)  # E max(z, 0) of a standard normal


def test_saturation_is_counted_on_the_networks_own_sums(seen):
    network, data, finding = seen
    names = finding.provenance["functions"]
    w1, b1, w2, b2 = (p.detach().numpy() for p in network.module.parameters())
    first = data.images @ w1.T + b1
    second = np.tanh(first) @ w2.T + b2
    for block, sums in enumerate((first, second)):
        steep = {
            "tanh": 1 - np.tanh(sums) ** 2,
            "sigmoid": np.exp(-sums) / (1 + np.exp(-sums)) ** 2 / 0.25,
        }
        for name, slope in steep.items():
            k = names.index(name)
            assert finding.numbers["saturated"][block, k] == pytest.approx((slope <= 0.05).mean())
        assert finding.numbers["saturated"][block, names.index("relu")] == pytest.approx((sums <= 0).mean())
        assert finding.numbers["mean"][block, names.index("tanh")] == pytest.approx(np.tanh(sums).mean())
    assert [names[k] for k in finding.numbers["own"]] == ["tanh", "sigmoid"]


def test_large_weights_saturate(seen):
    import torch

    _, data, before = seen
    loud = nm.load(build({"sizes": [2, 4, 1], "activation": "tanh", "seed": 1}), shape=(2,), loss="squared")
    with torch.no_grad():
        for parameter in loud.module.parameters():
            parameter.mul_(30)
    after = nm.look("activation_functions", loud, data)
    assert after.checks[1].measured > before.checks[1].measured + 0.3
