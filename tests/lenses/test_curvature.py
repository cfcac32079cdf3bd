"""Eigenvalues by Lanczos against those of the whole Hessian, and against quadratics made by hand."""

import copy

import numpy as np
import pytest
import torch

import neuralmine as nm
from neuralmine.surfaces import hessian_product, lanczos


def tiny(loss, activation=torch.nn.Tanh):
    torch.manual_seed(4)
    parts = [torch.nn.Flatten(), torch.nn.Linear(6, 4), activation(), torch.nn.Dropout(0.5), torch.nn.Linear(4, 3)]
    module = torch.nn.Sequential(*parts)
    generator = np.random.default_rng(1)
    data = nm.Dataset("made", generator.random((40, 6)), np.arange(40) % 3, ("a", "b", "c"))
    return nm.load(module, shape=(6,), loss=loss, labels=data.classes), data


def whole_hessian(network, data):
    module = copy.deepcopy(network.module).double().eval()
    names, sizes = zip(*[(n, p.shape) for n, p in module.named_parameters()], strict=True)
    inputs, labels = network.encode(data.images).double(), torch.as_tensor(np.asarray(data.labels))

    def loss(flat):
        parts = flat.split([size.numel() for size in sizes])
        state = {name: part.view(size) for name, part, size in zip(names, parts, sizes, strict=True)}
        out = torch.func.functional_call(module, state, (inputs,))
        if network.loss == "squared":
            return (out - torch.nn.functional.one_hot(labels, 3)).square().sum(1).mean()
        return torch.nn.functional.cross_entropy(out, labels)

    flat = torch.cat([p.detach().reshape(-1) for p in module.parameters()])
    return torch.autograd.functional.hessian(loss, flat).numpy()


@pytest.mark.parametrize("loss", ["squared", "cross_entropy"])
@pytest.mark.parametrize("activation", [torch.nn.Tanh, torch.nn.ReLU])
def test_eigenvalues_are_those_of_the_whole_hessian(loss, activation):
    network, data = tiny(loss, activation)
    full = whole_hessian(network, data)
    right = np.linalg.eigvalsh(full)
    found = nm.look("curvature", network, data, count=4)
    np.testing.assert_allclose(found.numbers["largest"], right[::-1][:4], atol=1e-4, rtol=1e-6)
    np.testing.assert_allclose(found.numbers["smallest"], right[0], atol=1e-4, rtol=1e-6)
    assert found.numbers["residuals"].max() < 1e-4
    assert found.numbers["rate"] == pytest.approx(2 / right[-1], rel=1e-5)
    assert found.checks[0].passed
    assert "2/λ" in found.summary
    product, size = hessian_product(network, data, images=7)
    vector = np.random.default_rng(0).normal(size=size)
    np.testing.assert_allclose(product(vector), full @ vector, atol=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_lanczos_on_any_symmetric_matrix(seed):
    generator = np.random.default_rng(seed)
    size = int(generator.integers(3, 40))
    matrix = generator.normal(size=(size, size))
    matrix = matrix + matrix.T
    if seed % 2:  # of low rank: the start vector reaches little of it
        matrix[2:] = matrix[:, 2:] = 0
    right = np.linalg.eigvalsh(matrix)
    found = lanczos(lambda v: matrix @ v, size, count=2, seed=seed)
    np.testing.assert_allclose(found.largest, right[::-1][:2], atol=1e-6)
    assert found.smallest == pytest.approx(right[0], abs=1e-6)
    assert found.residuals.max() < 1e-5 * np.abs(right).max()
    np.testing.assert_allclose(matrix @ found.directions[0], found.largest[0] * found.directions[0], atol=1e-4)


def test_several_equal_and_none_at_all():
    assert lanczos(lambda v: 3 * v, 7, count=3).largest == pytest.approx([3, 3, 3])
    flat = lanczos(lambda v: 0 * v, 20, count=3)
    assert flat.largest == pytest.approx([0, 0, 0])
    assert flat.smallest == 0
    assert lanczos(lambda v: 2 * v, 1).largest == pytest.approx([2])


def test_too_few_products_do_not_pass():
    network, data = tiny("squared")
    found = nm.look("curvature", network, data, count=1, iterations=2)
    assert not found.checks[0].passed


def test_the_rate_is_where_descent_turns_into_divergence():
    """On a linear net with the squared loss the loss is quadratic: 0.99 of the limit shrinks, 1.01 grows."""
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 2).double()
    generator = np.random.default_rng(1)
    data = nm.Dataset("made", generator.random((30, 3)), np.arange(30) % 2, ("a", "b"))
    network = nm.load(module, shape=(3,), loss="squared")
    rate = float(nm.look("curvature", network, data).numbers["rate"])
    inputs, wanted = network.encode(data.images).double(), torch.eye(2).double()[np.arange(30) % 2]
    for factor, shrinks in ((0.99, True), (1.01, False)):
        mine, losses = copy.deepcopy(module), []
        optimizer = torch.optim.SGD(mine.parameters(), factor * rate)
        for _ in range(1500):
            optimizer.zero_grad()
            loss = (mine(inputs) - wanted).square().sum(1).mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert (losses[-1] < losses[0]) == shrinks


def test_the_digits_net(net, digits):
    found = nm.look("curvature", net, digits, limit=300)
    assert found.numbers["largest"][0] > 0
    assert found.checks[0].passed
    assert "300 of the 1797" in found.summary
