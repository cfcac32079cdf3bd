"""make: torch's optimizers by name."""

from __future__ import annotations

import pytest
import torch

from neuralmine.architectures.mlp import mlp
from neuralmine.errors import UnknownName, UsageError
from neuralmine.optimizers import NAMES, OneWeightAtATime, make


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("sgd", torch.optim.SGD), ("gradient_descent", torch.optim.SGD), ("adam", torch.optim.Adam),
        ("adamw", torch.optim.AdamW), ("RMSprop", torch.optim.RMSprop), ("nadam", torch.optim.NAdam),
    ],
)  # fmt: skip
def test_names_make_torch_optimizers(name, made):
    net = mlp([4, 2])
    for parameters in (net, net.parameters()):
        optimizer = make(name, parameters, 0.3)
        assert type(optimizer) is made
        assert optimizer.param_groups[0]["lr"] == 0.3
        assert len(optimizer.param_groups[0]["params"]) == 2


def test_options_reach_the_optimizer():
    group = make("sgd", mlp([4, 2]), 0.1, momentum=0.9, nesterov=True).param_groups[0]
    assert (group["momentum"], group["nesterov"]) == (0.9, True)


def test_one_weight_at_a_time_takes_the_module_and_the_data():
    x, y = torch.rand(6, 4, dtype=torch.float64), torch.tensor([0, 1] * 3)
    optimizer = make("one_weight_at_a_time", mlp([4, 2]), 2.0, inputs=x, labels=y)
    assert isinstance(optimizer, OneWeightAtATime)
    assert optimizer.param_groups[0]["lr"] == 2.0
    with pytest.raises(UsageError, match="module"):
        make("one_weight_at_a_time", mlp([4, 2]).parameters(), 2.0, inputs=x, labels=y)
    with pytest.raises(UsageError, match="inputs"):
        make("one_weight_at_a_time", mlp([4, 2]), 2.0)


@pytest.mark.parametrize("name", ["adamm", "Optimizer", "lr_scheduler", "", None])
def test_unknown_names_say_what_there_is(name):
    with pytest.raises(UnknownName, match="There is no optimizer") as caught:
        make(name, mlp([4, 2]), 0.1)
    assert "adamw" in str(caught.value)
    assert all(known in str(caught.value) for known in NAMES)


@pytest.mark.parametrize(
    ("name", "lr", "options"),
    [("adam", 0.1, {"momentum": 0.9}), ("sgd", -1.0, {}), ("sgd", 0.1, {"nesterov": True})],
)
def test_options_that_do_not_fit_are_refused(name, lr, options):
    with pytest.raises(UsageError, match=f"{name} does not take that"):
        make(name, mlp([4, 2]), lr, **options)
