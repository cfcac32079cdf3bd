"""One weight at a time: the slope is autograd's, the loss never rises, and the fast way equals the slow way."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from neuralmine.architectures.mlp import mlp
from neuralmine.errors import UnknownName, UsageError
from neuralmine.losses import mean_loss
from neuralmine.optimizers import OneWeightAtATime

LOSS_OUTPUT = [("squared", "sigmoid"), ("squared", "linear"), ("cross_entropy", "linear"), ("cross_entropy", "sigmoid")]
NETS = st.fixed_dictionaries(
    {
        "sizes": st.lists(st.integers(1, 4), min_size=1, max_size=3).map(lambda hidden: [*hidden, 3]),
        "activation": st.sampled_from(["sigmoid", "tanh", "relu"]),
        "bias": st.booleans(),
        "seed": st.integers(0, 1000),
    }
)


def problem(inputs: int, classes: int = 3, images: int = 12, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Images with ink at about half of the pixels and none at all at the first."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(images, inputs, generator=generator, dtype=torch.float64)
    x[torch.rand(x.shape, generator=generator) < 0.5] = 0
    x[:, 0] = 0
    return x, torch.randint(0, classes, (images,), generator=generator)


def exact(module: nn.Module, x: torch.Tensor, y: torch.Tensor, loss: str) -> float:
    with torch.no_grad():
        return mean_loss(loss, module(x), y).item()


def slope_by_autograd(module, x, y, loss, parameter, index) -> float:
    (gradient,) = torch.autograd.grad(mean_loss(loss, module(x), y), parameter)
    return gradient[index].item()


def naive_sweep(module, x, y, loss, rate, order="by_input", halvings=10) -> None:
    """The definition, with autograd's slopes and the whole network run for every loss."""
    for linear in [m for m in module.modules() if isinstance(m, nn.Linear)]:
        units, inputs = linear.weight.shape
        addresses = [(linear.weight, (unit, i)) for i in range(inputs) for unit in range(units)]
        if linear.bias is not None:
            addresses += [(linear.bias, (unit,)) for unit in range(units)]
        if order == "by_neuron":
            addresses.sort(key=lambda address: address[1][0])
        for parameter, index in addresses:
            old_loss, old = exact(module, x, y, loss), parameter[index].item()
            change = -rate * slope_by_autograd(module, x, y, loss, parameter, index)
            with torch.no_grad():
                for _ in range(halvings + 1):
                    parameter[index] = old + change
                    if exact(module, x, y, loss) < old_loss:
                        break
                    change /= 2
                else:
                    parameter[index] = old


def difference(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


@pytest.mark.parametrize(("loss", "output"), LOSS_OUTPUT)
@pytest.mark.parametrize("sizes", [[5, 3], [5, 4, 3], [5, 4, 4, 3]])
@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu"])
@pytest.mark.parametrize("bias", [True, False])
def test_slopes_are_autograds_and_the_curves_own(loss, output, sizes, activation, bias):
    net = mlp(sizes, activation=activation, output=output, bias=bias, seed=2)
    x, y = problem(5)
    optimizer = OneWeightAtATime(net, x, y, loss=loss, rate=2.0)
    assert optimizer.loss == pytest.approx(exact(net, x, y, loss), rel=1e-12)
    for _ in range(optimizer.count):
        name, index = optimizer.where()
        parameter = net.get_parameter(name)
        slope = slope_by_autograd(net, x, y, loss, parameter, index)
        beside = []
        for sign in (1, -1):
            moved = copy.deepcopy(net)
            with torch.no_grad():
                moved.get_parameter(name)[index] += sign * 1e-6
            beside.append(exact(moved, x, y, loss))
        hop = optimizer.step()
        assert (hop.name, hop.index) == (name, index)
        assert hop.slope == pytest.approx(slope, abs=1e-9)
        assert hop.slope == pytest.approx((beside[0] - beside[1]) / 2e-6, abs=1e-5)


@pytest.mark.parametrize(("loss", "output"), LOSS_OUTPUT)
@pytest.mark.parametrize("rate", [0.5, 1000.0])
def test_no_step_raises_the_exact_loss_and_the_record_is_what_happened(loss, output, rate):
    net = mlp([5, 4, 3], output=output, seed=1)
    x, y = problem(5)
    optimizer = OneWeightAtATime(net, x, y, loss=loss, rate=rate)
    overshot = 0
    for _ in range(2 * optimizer.count):
        before = exact(net, x, y, loss)
        name, index = optimizer.where()
        old = net.get_parameter(name)[index].item()
        hop = optimizer.step()
        after = exact(net, x, y, loss)
        assert after <= before * (1 + 1e-14)
        assert (hop.old_weight, hop.new_weight) == (old, net.get_parameter(name)[index].item())
        assert hop.old_loss == pytest.approx(before, rel=1e-12)
        assert hop.new_loss == pytest.approx(after, rel=1e-12)
        for i, (value, _) in enumerate(hop.hops):
            assert value == pytest.approx(old - rate * hop.slope / 2**i, rel=1e-12, abs=1e-15)
        for value, tried_loss in hop.hops[:-1]:
            assert tried_loss >= hop.old_loss, value
        if hop.new_weight != old:
            assert hop.hops[-1] == (hop.new_weight, pytest.approx(after, rel=1e-12))
        overshot += len(hop.hops) > 1
    assert overshot or rate == 0.5


@settings(max_examples=25, deadline=None)
@given(
    net=NETS,
    how=st.sampled_from(LOSS_OUTPUT),
    rate=st.floats(0.5, 30),
    order=st.sampled_from(["by_input", "by_neuron"]),
)
def test_sweeping_stepping_and_the_definition_give_the_same_weights(net, how, rate, order):
    loss, output = how
    swept, stepped, told, naive = (mlp(output=output, **net) for _ in range(4))
    x, y = problem(net["sizes"][0], seed=net["seed"])
    options = {"loss": loss, "rate": rate, "order": order}
    fast, one_by_one, telling = (OneWeightAtATime(m, x, y, **options) for m in (swept, stepped, told))
    hops, stepped_hops = [], []
    for _ in range(2):
        fast.sweep()
        telling.sweep(hops.append)
        stepped_hops += [one_by_one.step() for _ in range(one_by_one.count)]
        naive_sweep(naive, x, y, loss, rate, order)
    assert difference(swept, stepped) < 1e-6
    assert difference(swept, told) < 1e-6
    assert difference(swept, naive) < 1e-6
    assert fast.loss == pytest.approx(exact(swept, x, y, loss), rel=1e-12)
    assert [(h.name, h.index) for h in hops] == [(h.name, h.index) for h in stepped_hops]


def test_a_sweep_goes_through_every_weight_once_in_order():
    x, y = problem(4)
    expected = {
        "by_input": [("output.sum.weight", (0, 0)), ("output.sum.weight", (1, 0)), ("output.sum.weight", (2, 0))],
        "by_neuron": [("output.sum.weight", (0, 0)), ("output.sum.weight", (0, 1)), ("output.sum.weight", (0, 2))],
    }
    for order, first in expected.items():
        optimizer = OneWeightAtATime(mlp([4, 3]), x, y, order=order)
        seen = [(hop.name, hop.index) for hop in (optimizer.step() for _ in range(optimizer.count))]
        assert seen[:3] == first
        assert len(set(seen)) == optimizer.count == 15
        assert seen[-1] == ("output.sum.bias", (2,))
        assert optimizer.where() == seen[0]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("order", ["by_input", "by_neuron"])
def test_resuming_in_the_middle_of_a_sweep_gives_the_same_weights_to_the_bit(dtype, order):
    net = mlp([5, 4, 3], dtype=dtype)
    x, y = problem(5)
    first = OneWeightAtATime(net, x, y, rate=9.0, order=order)
    for _ in range(14):
        first.step()
    saved = io.BytesIO()
    torch.save({"net": net.state_dict(), "optimizer": first.state_dict()}, saved)
    saved.seek(0)
    state = torch.load(saved, weights_only=True)
    again = mlp([5, 4, 3], dtype=dtype, seed=77)
    again.load_state_dict(state["net"])
    second = OneWeightAtATime(again, x, y)  # the rate and order come from the state
    second.load_state_dict(state["optimizer"])
    for _ in range(2 * first.count):
        assert first.step() == second.step()
    assert difference(net, again) == 0


def test_a_state_kept_before_there_was_an_order_still_loads():
    x, y = problem(4)
    optimizer = OneWeightAtATime(mlp([4, 3]), x, y)
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        del group["order"]
    optimizer.load_state_dict(state)
    assert optimizer.step().index == (0, 0)


def test_float32_weights_keep_what_was_tried():
    net = mlp([5, 4, 3], dtype="float32")
    x, y = problem(5)
    optimizer = OneWeightAtATime(net, x.float(), y, rate=9.0)
    losses = [optimizer.sweep() for _ in range(5)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == pytest.approx(exact(net.double(), x.float().double(), y, "squared"), rel=1e-12)


@pytest.mark.parametrize(("loss", "output"), LOSS_OUTPUT)
def test_the_curve_is_the_loss_at_every_value(loss, output):
    net = mlp([5, 4, 3], output=output)
    x, y = problem(5)
    optimizer = OneWeightAtATime(net, x, y, loss=loss)
    for name, index in [("hidden1.sum.weight", (1, 2)), ("hidden1.sum.bias", (3,)), ("output.sum.weight", (2, 1)),
                        ("output.sum.bias", (0,)), ("hidden1.sum.weight", (1, 0))]:  # fmt: skip
        kept = copy.deepcopy(net.state_dict())
        values, losses = optimizer.curve(name, index, span=4.0, points=9)
        assert all(torch.equal(kept[key], now) for key, now in net.state_dict().items())
        assert values[4] == net.get_parameter(name)[index].item()
        brute, moved = [], copy.deepcopy(net)
        for value in values:
            with torch.no_grad():
                moved.get_parameter(name)[index] = value
            brute.append(exact(moved, x, y, loss))
        np.testing.assert_allclose(losses, brute, rtol=1e-10)
        if index != (1, 0):  # the first pixel never has ink, so that curve is flat
            assert values[losses.argmin()] == values[np.argmin(brute)]
    values, _ = optimizer.curve("output.sum.bias", (0,), around=7.0, span=1.0, points=3)
    np.testing.assert_allclose(values, [6, 7, 8])


@pytest.mark.parametrize("sizes", [[4, 3], [4, 5, 3]])
def test_weights_of_a_pixel_that_never_has_ink_stay(sizes):
    net = mlp(sizes)
    x, y = problem(4)
    dead = next(net.parameters())[:, 0].clone()
    optimizer = OneWeightAtATime(net, x, y)
    hop = optimizer.step()
    assert (hop.slope, hop.hops, hop.old_weight) == (0.0, (), hop.new_weight)
    for _ in range(3):
        optimizer.sweep()
    assert torch.equal(next(net.parameters())[:, 0], dead)


def test_frozen_parameters_stay_and_the_others_move():
    net = mlp([4, 5, 3])
    x, y = problem(4)
    net.hidden1.requires_grad_(False)
    net.output.sum.bias.requires_grad_(False)
    before = copy.deepcopy(net.state_dict())
    optimizer = OneWeightAtATime(net, x, y)
    optimizer.sweep()
    optimizer.step()
    moved = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"output.sum.weight"}


def test_changes_from_outside_are_seen():
    net = mlp([4, 3])
    x, y = problem(4)
    optimizer = OneWeightAtATime(net, x, y)
    optimizer.sweep()
    with torch.no_grad():
        net.output.sum.weight.mul_(-3)
    net.output.sum.bias.data = torch.ones(3, dtype=torch.float64)  # a new tensor altogether
    want = exact(net, x, y, "squared")
    assert optimizer.step().old_loss == pytest.approx(want, rel=1e-12)
    assert optimizer.refresh() == pytest.approx(exact(net, x, y, "squared"), rel=1e-12)
    optimizer.sweep()
    assert net.output.sum.bias.data.ne(1).all()


def test_torch_is_told_that_the_weights_moved():
    net = mlp([4, 3, 3])
    x, y = problem(4)
    optimizer = OneWeightAtATime(net, x, y)
    loss = mean_loss("squared", net(x), y)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_hops_that_never_help_leave_the_weight():
    net = mlp([4, 3], output="linear")
    x, y = problem(4)
    before = copy.deepcopy(net)
    optimizer = OneWeightAtATime(net, x, y, rate=1e300, halvings=3)
    for _ in range(optimizer.count):
        assert len(optimizer.step().hops) in (0, 4)
    optimizer.sweep()
    assert difference(net, before) == 0


def test_one_output_says_yes_or_no():
    net = mlp([4, 1], bias=False)
    x, y = problem(4, classes=2)
    optimizer = OneWeightAtATime(net, x, y)
    assert optimizer.sweep() == pytest.approx(exact(net, x, y, "squared"), rel=1e-12)
    entropy = OneWeightAtATime(net, x, y, loss="cross_entropy")
    assert entropy.loss == exact(net, x, y, "cross_entropy") == 0  # the softmax of one output is always 1


class Twice(nn.Module):
    """Its layers are a chain to look at, but it does not run them so."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x)) + x


def tied() -> nn.Module:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    return net


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Conv1d(1, 1, 1)), nn.Sequential(nn.Linear(4, 3), nn.Softmax(1)), nn.Sequential(nn.Flatten()),
        nn.Sequential(nn.ReLU(), nn.Linear(4, 3)), nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Sigmoid()),
        nn.Sequential(nn.Linear(5, 3)), nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), Twice(), tied(),
        mlp([4, 3]).half(),
    ],
)  # fmt: skip
def test_what_is_no_chain_is_refused(module):
    x, y = problem(4)
    with pytest.raises(UsageError, match="One weight at a time cannot follow"):
        OneWeightAtATime(module, x, y)


def test_wrong_use_says_what_to_do():
    net = mlp([4, 3])
    x, y = problem(4)
    with pytest.raises(UnknownName, match="squared"):
        OneWeightAtATime(net, x, y, loss="sqared")
    with pytest.raises(UnknownName, match="by_input"):
        OneWeightAtATime(net, x, y, order="random")
    for bad in ({"rate": -1}, {"rate": float("nan")}, {"halvings": -1}):
        with pytest.raises(UsageError):
            OneWeightAtATime(net, x, y, **bad)
    for inputs, labels in ((x, y[:-1]), (x[:0], y[:0])):
        with pytest.raises(UsageError):
            OneWeightAtATime(net, inputs, labels)
    optimizer = OneWeightAtATime(net, x, y)
    with pytest.raises(UnknownName, match=r"output\.sum\.weight"):
        optimizer.curve("output.weight", (0, 0))
    for index in ((0,), (3, 0), (0, 4), (-1, 0)):
        with pytest.raises(UsageError, match="has shape"):
            optimizer.curve("output.sum.weight", index)


def test_module_flags_are_left_as_found():
    net = mlp([4, 6, 3], dropout=0.5)
    net.train()
    net.output.eval()
    x, y = problem(4)
    optimizer = OneWeightAtATime(net, x, y)
    assert net.hidden1.training
    assert not net.output.training
    optimizer.sweep()
    net.eval()
    assert optimizer.loss == pytest.approx(exact(net, x, y, "squared"), rel=1e-12)
