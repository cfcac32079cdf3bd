"""mlp: the addresses that the pages show, the seed, and what it refuses."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from neuralmine.architectures import build
from neuralmine.architectures.mlp import mlp
from neuralmine.errors import UnknownName, UsageError


def names(module: torch.nn.Module) -> list[str]:
    return [name for name, _ in module.named_modules() if name]


def test_addresses_are_blocks_with_a_sum_and_an_activation():
    assert names(mlp([64, 16, 10])) == [
        "flatten", "hidden1", "hidden1.sum", "hidden1.activation", "output", "output.sum", "output.activation",
    ]  # fmt: skip
    assert names(mlp([4, 3, 2], output="linear", dropout=0.5))[-4:] == [
        "hidden1.activation", "hidden1.dropout", "output", "output.sum",
    ]  # fmt: skip


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_it_computes_weighted_sums_and_activations_of_flattened_images(activation, dtype):
    net = mlp([12, 5, 3], activation=activation, dtype=str(dtype).removeprefix("torch."))
    x = torch.rand(7, 3, 4, dtype=dtype)
    w1, b1, w2, b2 = net.parameters()
    hidden = getattr(torch, activation)(x.flatten(1) @ w1.T + b1)
    torch.testing.assert_close(net(x), torch.sigmoid(hidden @ w2.T + b2))
    torch.testing.assert_close(net(x), net(x.flatten(1)))
    assert net(x).dtype == dtype


def test_start_is_uniform_in_one_over_root_of_the_inputs_and_from_the_seed_alone():
    before = torch.get_rng_state()
    one, same, other = (mlp([64, 50, 10], seed=seed) for seed in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    weight = one.hidden1.sum.weight
    assert weight.abs().max() <= 1 / 8
    assert weight.std().item() == pytest.approx(1 / 8 / 3**0.5, rel=0.05)
    assert one.hidden1.sum.bias.abs().max() <= 1 / 8
    assert sum(p.numel() for p in mlp([64, 10], bias=False).parameters()) == 640


def test_dropout_draws_from_a_generator_of_its_own():
    net = mlp([8, 200, 2], dropout=0.25)
    x, before = torch.rand(4, 8, dtype=torch.float64), torch.get_rng_state()
    part = net.hidden1.dropout
    drawn = []
    for _ in range(2):
        part.generator.manual_seed(5)
        drawn.append(net.train()(x))
    assert torch.equal(*drawn)
    assert not torch.equal(drawn[0], net(x))  # the generator went on
    assert torch.equal(copy.deepcopy(net)(x), net(x))  # a copy goes on from the same place
    assert torch.equal(before, torch.get_rng_state())
    ones = torch.ones(100, 100, dtype=torch.float64)
    assert part(ones).mean().item() == pytest.approx(1, abs=0.05)
    assert set(part(ones).unique().tolist()) == {0.0, 1 / 0.75}
    assert torch.equal(net.eval().hidden1.dropout(ones), ones)


@pytest.mark.parametrize(
    "sizes", [[], [64], [64, 0], [64, -1, 10], [64, 1.5], [64, float("nan")], ["64", 10], [64, None]]
)
def test_sizes_that_make_no_network_are_refused(sizes):
    with pytest.raises(UsageError, match="no network"):
        mlp(sizes)


@pytest.mark.parametrize("options", [{"activation": "relux"}, {"output": "softmax"}, {"dtype": "float16"}])
def test_unknown_names_say_what_there_is(options):
    with pytest.raises(UnknownName, match="There is"):
        mlp([4, 2], **options)


@pytest.mark.parametrize("dropout", [-0.1, 1.0, float("nan")])
def test_dropout_out_of_range_is_refused(dropout):
    with pytest.raises(UsageError):
        mlp([4, 3, 2], dropout=dropout)


def test_build_takes_the_description_that_files_keep():
    built = build({"name": "mlp", "sizes": np.array([4.0, 3.0, 2.0]), "activation": "tanh", "seed": 9})
    made = mlp([4, 3, 2], activation="tanh", seed=9)
    assert all(torch.equal(a, b) for a, b in zip(built.parameters(), made.parameters(), strict=True))
