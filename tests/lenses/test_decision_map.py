"""Decision maps against a forward pass by hand in numpy."""

import numpy as np
import pytest

import neuralmine as nm
from neuralmine.architectures import build
from neuralmine.errors import NetworkError
from neuralmine.networks.torch_module import network_of

ACT = {
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0),
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "leaky_relu": lambda z: np.where(z > 0, z, 0.01 * z),
    "identity": lambda z: z,
}


def net(activation, sizes, seed=2):
    return network_of(build({"sizes": sizes, "activation": activation, "seed": seed}), shape=(2,), loss="squared")


@pytest.mark.parametrize("activation", list(ACT))
def test_every_neuron_everywhere(activation):
    network, data = net(activation, [2, 4, 3, 1]), nm.datasets.load("xor")
    numbers = nm.look("decision_map", network, data, points=13).numbers
    w1, b1, w2, b2, w3, b3 = (p.detach().numpy() for p in network.module.parameters())
    for row, column in ((0, 0), (12, 3), (5, 12), (6, 6)):
        place = np.array([numbers["across"][column], numbers["down"][row]])
        first = ACT[activation](w1 @ place + b1)
        second = ACT[activation](w2 @ first + b2)
        out = ACT["sigmoid"](w3 @ second + b3)
        assert np.allclose(numbers["hidden1"][:, row, column], first, atol=1e-12)
        assert np.allclose(numbers["hidden2"][:, row, column], second, atol=1e-12)
        assert np.allclose(numbers["output"][:, row, column], out, atol=1e-12)
        assert numbers["said"][row, column] == (out[0] > 0.5)
    assert numbers["down"][0] > numbers["down"][-1], "the first row is the highest"
    extent = np.ptp(data.images[:, 0])
    assert np.isclose(numbers["across"][-1], data.images[:, 0].max() + 0.25 * extent)


def test_other_inputs_are_cut_along_the_principal_directions():
    from sklearn.decomposition import PCA

    network, data = nm.load("64-10"), nm.datasets.load("digits").take(slice(0, 200))
    finding = nm.look("decision_map", network, data, points=7)
    fitted = PCA(2).fit(data.images.reshape(200, -1).astype(float))
    assert np.isclose(finding.numbers["explained"], fitted.explained_variance_ratio_.sum())
    assert np.allclose(np.abs(finding.numbers["axes"] @ fitted.components_.T), np.eye(2), atol=1e-8)
    place = finding.numbers["centre"] + finding.numbers["axes"].T @ [
        finding.numbers["across"][1],
        finding.numbers["down"][4],
    ]
    weight, bias = (p.detach().numpy() for p in network.module.parameters())
    assert np.allclose(finding.numbers["output"][:, 4, 1], ACT["sigmoid"](weight @ place + bias))


def test_the_check_sees_a_map_that_is_too_coarse():
    network, data = net("tanh", [2, 8, 1]), nm.datasets.load("spirals")
    for _ in nm.train(network, data, optimizer="adam", lr=0.05, epochs=60, batch=50):
        pass
    coarse, fine = (nm.look("decision_map", network, data, points=n).checks[0] for n in (3, 101))
    assert coarse.measured < fine.measured
    assert fine.measured > 0.97
    assert fine.passed


def test_a_network_without_sums_is_refused():
    import torch

    module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    with pytest.raises(NetworkError):
        nm.look("decision_map", nm.load(module, shape=(1, 8, 8)), nm.datasets.load("digits"))
