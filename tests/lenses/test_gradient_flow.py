"""gradient_flow equals autograd and arithmetic by hand, finds what is stuck, and says so plainly."""

import numpy as np
import pytest
import torch

import neuralmine as nm
from neuralmine.architectures.mlp import mlp
from neuralmine.errors import NetworkError, UsageError


def digits(count=96):
    return nm.datasets.load("digits").take(slice(0, count))


def rms(values):
    return float(np.sqrt(np.mean(np.square(np.concatenate([np.ravel(v) for v in values])))))


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu"])
def test_equals_the_chain_rule_by_hand(activation):
    data = digits()
    module = mlp([64, 12, 10], activation=activation, output="sigmoid", seed=2)
    finding = nm.look("gradient_flow", nm.load(module, shape=(8, 8), loss="squared"), data, lr=0.3)
    first, bias, second, last = [p.detach().numpy() for p in module.parameters()]
    x, y = data.images.reshape(len(data), 64), np.eye(10)[data.labels]
    sums = x @ first.T + bias
    hidden, slope = {
        "sigmoid": lambda z: (1 / (1 + np.exp(-z)), np.exp(-z) / (1 + np.exp(-z)) ** 2),
        "tanh": lambda z: (np.tanh(z), 1 / np.cosh(z) ** 2),
        "relu": lambda z: (z * (z > 0), (z > 0).astype(float)),
    }[activation](sums)
    out = 1 / (1 + np.exp(-(hidden @ second.T + last)))
    error = 2 * (out - y) * out * (1 - out)  # of each image's own loss
    below = error @ second * slope
    gradients = [
        [below.T @ x / len(x), below.sum(0) / len(x)],
        [error.T @ hidden / len(x), error.sum(0) / len(x)],
    ]
    numbers = finding.numbers
    assert np.allclose(numbers["gradient"], [rms(g) for g in gradients], rtol=1e-9)
    assert np.allclose(numbers["error"], [rms([below]), rms([error])], rtol=1e-9)
    assert np.allclose(numbers["activation"], [rms([hidden]), rms([out])], rtol=1e-9)
    assert np.allclose(numbers["weight"], [rms([first, bias]), rms([second, last])], rtol=1e-9)
    assert np.allclose(numbers["ratio"], 0.3 * numbers["gradient"] / numbers["weight"], rtol=1e-9)


def test_dead_and_saturated_units_are_counted_and_no_others():
    module = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 6), torch.nn.ReLU(inplace=True),
        torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 10), torch.nn.Sigmoid(),
    )  # fmt: skip
    with torch.no_grad():
        module[1].weight.abs_()
        module[1].bias.zero_()
        module[1].bias[:2] = -1000.0  # two units that no image can wake
        module[3].bias[:3] = torch.tensor([60.0, -60.0, 2.0])  # tanh′ 0, 0, and 0.07 at most: not a hundredth
        module[3].weight.mul_(1e-3)
    finding = nm.look("gradient_flow", nm.load(module, shape=(8, 8), loss="squared"), digits())
    assert finding.numbers["dead"].tolist() == [2, 0, 0]
    assert finding.numbers["saturated"].tolist() == [0, 2, 0]
    assert finding.numbers["units"].tolist() == [6, 5, 10]
    assert "2 of 21 units are dead" in finding.summary
    assert "2 of 21 units are saturated" in finding.summary
    assert module[2].inplace


def test_a_hundred_sigmoid_layers_cannot_learn_and_shuffling_changes_nothing():
    network = nm.load(mlp([64, *[16] * 99, 10]), shape=(8, 8), loss="squared")
    finding = nm.look("gradient_flow", network, digits())
    assert "This net of 100 sigmoid layers cannot learn" in finding.summary
    check = finding.checks[0]
    assert check.passed is False
    assert check.measured < 1e-40
    assert check.null < 1e-40  # not these weights: any of this size
    again = nm.look("gradient_flow", nm.load("64-16-10", trained=False), digits())
    assert again.checks[0].passed
    assert "cannot learn" not in again.summary


def test_residual_connections_let_the_gradient_through():
    class Residual(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.sum, self.act = torch.nn.Linear(16, 16), torch.nn.Sigmoid()

        def forward(self, x):
            return x + self.act(self.sum(x)) - 0.5

    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 16), *[Residual() for _ in range(98)], torch.nn.Linear(16, 10)
    )
    finding = nm.look("gradient_flow", nm.load(module, shape=(8, 8)), digits())
    assert len(finding.provenance["layers"]) == 100
    assert finding.checks[0].measured > 1e-3


def test_a_rate_too_high_is_told():
    network = nm.load("64-16-10", trained=False)
    assert "lower the rate" in nm.look("gradient_flow", network, digits(), lr=100.0).summary
    assert "lower the rate" not in nm.look("gradient_flow", network, digits(), lr=0.01).summary
    assert "the rate is too low" in nm.look("gradient_flow", network, digits(), lr=1e-8).summary


def test_convolution_and_normalisation_use_channels_and_their_own_statistics():
    torch.manual_seed(1)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Dropout(0.5),
        torch.nn.Linear(144, 10),
    )  # fmt: skip
    with torch.no_grad():
        module[1].bias[1] = -100.0
    network, data = nm.load(module, shape=(1, 8, 8)), digits()
    finding = nm.look("gradient_flow", network, data)
    assert finding.provenance["layers"] == ["0", "1", "5"]
    assert finding.numbers["units"].tolist() == [0, 4, 0]
    assert finding.numbers["dead"].tolist() == [0, 1, 0]
    assert torch.equal(module[1].running_mean, torch.zeros(4))
    module.train()
    module[4].eval()
    output = module(network.encode(data.images))
    torch.nn.functional.cross_entropy(output, torch.tensor(data.labels)).backward()
    by_hand = [rms([p.grad.numpy() for p in module[i].parameters()]) for i in (0, 1, 5)]
    assert np.allclose(finding.numbers["gradient"], by_hand, rtol=1e-4)
    with pytest.raises(NetworkError, match="limit"):
        nm.look("gradient_flow", nm.load(torch.nn.Sequential(torch.nn.BatchNorm1d(64), torch.nn.Linear(64, 10)), shape=(64,)),
                nm.Dataset("one", data.images[:1].reshape(1, 64), data.labels[:1], data.classes))  # fmt: skip


def test_what_cannot_be_followed_is_refused():
    with pytest.raises(UsageError, match="no weights"):
        nm.look("gradient_flow", nm.load(torch.nn.Sequential(torch.nn.Flatten()), shape=(8, 8)), digits())
    network = nm.load(mlp([64, 10]), shape=(8, 8), loss="squared")
    with torch.no_grad():
        next(network.module.parameters())[0, 0] = float("nan")
    with pytest.raises(UsageError, match="loss is nan"):
        nm.look("gradient_flow", network, digits())
