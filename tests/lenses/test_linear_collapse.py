"""The collapse of layers without activations, against numpy."""

import numpy as np
import pytest
import torch

import neuralmine as nm
from neuralmine.architectures import build
from neuralmine.errors import NetworkError
from neuralmine.networks.torch_module import network_of


def net(activation, sizes, seed=0, bias=True):
    module = build({"sizes": sizes, "activation": activation, "seed": seed, "bias": bias})
    return network_of(module, shape=(sizes[0],), loss="squared")


@pytest.mark.parametrize("sizes", [[2, 1], [2, 4, 1], [2, 5, 3, 4, 1], [2, 8, 8, 8, 8, 2]])
@pytest.mark.parametrize("bias", [True, False])
def test_without_activations_the_layers_are_one_matrix(sizes, bias):
    network, data = net("identity", sizes, bias=bias), nm.datasets.load("xor")
    finding = nm.look("linear_collapse", network, data)
    weights = [p.detach().numpy() for name, p in network.module.named_parameters() if name.endswith("weight")]
    product = weights[-1] if len(weights) == 1 else np.linalg.multi_dot(weights[::-1])
    assert np.allclose(finding.numbers["product"], product, atol=1e-14)
    # The network itself, its sigmoid undone.
    out = network.module(network.encode(data.images)).detach().numpy()
    sums = np.log(out / (1 - out))
    assert np.allclose(data.images @ product.T + finding.numbers["product_bias"], sums, atol=1e-9)
    assert finding.numbers["gap"] < 1e-6
    assert finding.numbers["off"].max() < 1e-6
    assert finding.numbers["unexplained"] < 1e-9
    assert all(check.passed for check in finding.checks)


@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid"])
def test_with_activations_they_are_not(activation):
    from sklearn.linear_model import LinearRegression

    network, data = net(activation, [2, 4, 1], seed=3), nm.datasets.load("xor")
    with torch.no_grad():
        for parameter in network.module.parameters():
            parameter.mul_(4)
    finding = nm.look("linear_collapse", network, data)
    assert finding.numbers["gap"] > 0.01
    assert not finding.checks[0].passed
    out = network.module(network.encode(data.images)).detach().numpy()
    sums = np.log(out / (1 - out))
    fitted = LinearRegression().fit(data.images, sums)
    assert np.isclose(finding.numbers["unexplained"], 1 - fitted.score(data.images, sums))


def test_layers_that_do_not_follow_are_refused():
    class Beside(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)

        def forward(self, given):
            return self.one(given) + self.two(given)

    with pytest.raises(NetworkError, match="do not follow"):
        nm.look("linear_collapse", nm.load(Beside(), shape=(2,)), nm.datasets.load("xor"))
