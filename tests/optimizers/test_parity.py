"""Races are honest: every optimizer equals torch's own driven by hand, its published formula, and convex theory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import neuralmine as nm
from neuralmine.architectures.mlp import mlp
from neuralmine.optimizers import OneWeightAtATime
from neuralmine.races import race_steps

STEPS = 100
RATES = {
    "one_weight_at_a_time": 4.0, "gradient_descent": 0.5, "sgd": 0.3, "momentum": 0.05, "nesterov": 0.05,
    "adagrad": 0.05, "rmsprop": 0.003, "adam": 0.01, "adamw": 0.01, "lbfgs": 0.5, "nadam": 0.01, "adadelta": 0.5,
}  # fmt: skip
BY_HAND = {
    "gradient_descent": lambda p: torch.optim.SGD(p, lr=0.5),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.3),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.003),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.5, max_iter=1, line_search_fn="strong_wolfe"),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "adadelta": lambda p: torch.optim.Adadelta(p, lr=0.5),
}
WHOLE = ("gradient_descent", "lbfgs")


def problem(count=40, seed=0):
    generator = np.random.default_rng(seed)
    images = generator.uniform(0, 1, (count, 6))
    labels = (images[:, :3].argmax(1)).astype(np.int64)
    return nm.Dataset("which of three is largest", images, labels, ("a", "b", "c"))


def small():
    return nm.load(mlp([6, 5, 3], activation="tanh", seed=3), shape=(6,), loss="squared")


def flat(module):
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()]).numpy().copy()


def loss_of(module, x, y):
    return ((module(x) - y) ** 2).sum(1).mean()


def batches(count, batch):
    """Every epoch a shuffle of its own, cut into batches: written anew here."""
    order, epoch = [], 0
    for _ in range(STEPS):
        if not order:
            shuffled = np.random.default_rng([7, epoch]).permutation(count)
            order = [shuffled[i : i + batch] for i in range(0, count, batch)]
            epoch += 1
        yield order.pop(0)


@pytest.fixture(scope="module")
def raced():
    """Where each optimizer is after each step of a race of them all, four at a time."""
    names, places, losses = list(RATES), {}, {}
    for some in (names[:4], names[4:8], names[8:]):
        rates = {name: RATES[name] for name in some}
        for step in race_steps(small(), problem(), optimizers=some, steps=STEPS, batch=16, lr=rates, seed=7):
            for name in some:
                places.setdefault(name, []).append(step.weights(name))
                losses.setdefault(name, []).append(step.losses[name])
    return {name: np.array(points) for name, points in places.items()}, losses


@pytest.mark.parametrize("name", list(BY_HAND))
def test_a_hundred_steps_equal_torch_driven_by_hand(name, raced):
    module, data = small().module, problem()
    x, y = torch.tensor(data.images), torch.eye(3, dtype=torch.float64)[data.labels]
    optimizer = BY_HAND[name](module.parameters())
    for step, which in enumerate(batches(len(data), 16), start=1):
        mine = slice(None) if name in WHOLE else which

        def closure(mine=mine):
            optimizer.zero_grad()
            loss = loss_of(module, x[mine], y[mine])
            loss.backward()
            return loss

        optimizer.step(closure)
        assert np.abs(raced[0][name][step] - flat(module)).max() < 1e-6, step
        assert raced[1][name][step] == pytest.approx(loss_of(module, x, y).item(), abs=1e-9)
    assert step == STEPS


def test_one_weight_at_a_time_is_a_sweep_a_step_and_never_climbs(raced):
    module, data = small().module, problem()
    labels = torch.tensor(data.labels)
    optimizer = OneWeightAtATime(module, torch.tensor(data.images), labels, rate=4.0)
    for step in range(1, STEPS + 1):
        for _ in range(optimizer.count):
            optimizer.step()
        assert np.abs(raced[0]["one_weight_at_a_time"][step] - flat(module)).max() < 1e-6
    assert (np.diff(raced[1]["one_weight_at_a_time"]) <= 1e-15).all()


def momentum(w, g, state, t):
    state["v"] = 0.9 * state.get("v", 0) + g
    return w - 0.05 * state["v"]


def nesterov(w, g, state, t):
    state["v"] = 0.9 * state.get("v", 0) + g
    return w - 0.05 * (g + 0.9 * state["v"])


def adagrad(w, g, state, t):
    state["s"] = state.get("s", 0) + g * g
    return w - 0.05 * g / (np.sqrt(state["s"]) + 1e-10)


def rmsprop(w, g, state, t):
    state["s"] = 0.99 * state.get("s", 0) + 0.01 * g * g
    return w - 0.003 * g / (np.sqrt(state["s"]) + 1e-8)


def adam(w, g, state, t):
    state["m"] = 0.9 * state.get("m", 0) + 0.1 * g
    state["s"] = 0.999 * state.get("s", 0) + 0.001 * g * g
    return w - 0.01 * (state["m"] / (1 - 0.9**t)) / (np.sqrt(state["s"] / (1 - 0.999**t)) + 1e-8)


def adamw(w, g, state, t):
    return adam(w * (1 - 0.01 * 0.01), g, state, t)


def sgd(w, g, state, t):
    return w - 0.3 * g


def gradient_descent(w, g, state, t):
    return w - 0.5 * g


FORMULAS = {f.__name__: f for f in (gradient_descent, sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw)}


@pytest.mark.parametrize("name", list(FORMULAS))
def test_a_hundred_steps_equal_the_published_formula(name, raced):
    """No torch optimizer at all, and the gradient of the two-layer net by the chain rule in numpy."""
    data, place = problem(), flat(small().module)
    wanted, state = np.eye(3)[data.labels], {}
    for t, which in enumerate(batches(len(data), 16), start=1):
        mine = slice(None) if name in WHOLE else which
        x, y = data.images[mine], wanted[mine]
        first, bias, second, last = np.split(place, [30, 35, 50])
        hidden = np.tanh(x @ first.reshape(5, 6).T + bias)
        out = 1 / (1 + np.exp(-(hidden @ second.reshape(3, 5).T + last)))
        error = 2 * (out - y) / len(x) * out * (1 - out)
        below = error @ second.reshape(3, 5) * (1 - hidden**2)
        slope = np.concatenate([(below.T @ x).ravel(), below.sum(0), (error.T @ hidden).ravel(), error.sum(0)])
        place = FORMULAS[name](place, slope, state, t)
    assert np.abs(raced[0][name][STEPS] - place).max() < 1e-6


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99, 1.02, 1.5])
def test_on_a_convex_loss_it_falls_below_two_over_l_and_diverges_above(share):
    """A linear net under the squared loss is a quadratic; L is the largest eigenvalue of its Hessian, 2 XᵀX/n."""
    data = problem(60, 1)
    steepest = np.linalg.eigvalsh(2 * data.images.T @ data.images / len(data)).max()
    torch.manual_seed(0)
    network = nm.load(torch.nn.Linear(6, 3, bias=False, dtype=torch.float64), shape=(6,), loss="squared")
    rate = share * 2 / steepest
    seen = list(
        race_steps(network, data, optimizers="gradient_descent,adam", steps=300, lr={"gradient_descent": rate, "adam": 0})
    )  # fmt: skip
    losses = np.array([step.losses["gradient_descent"] for step in seen])
    if share < 1:
        assert (np.diff(losses) < 0).all()
        assert not seen[-1].out
    else:
        finite = losses[np.isfinite(losses)]
        assert (np.diff(finite)[-20:] > 0).all()
        assert "gradient_descent" in seen[-1].out
        assert np.isnan(losses[-1])
