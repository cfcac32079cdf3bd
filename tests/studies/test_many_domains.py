"""Many domains: the cart against an independent integrator, the answers against scikit-learn, and verdicts that can fail."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.linalg import solve_continuous_are
from sklearn.neural_network import MLPClassifier

from neuralmine.datasets import load
from neuralmine.studies import _cart_pole as cart
from neuralmine.studies import many_domains, study


def mass_matrix_slopes(_, state, force):
    """Lagrange's equations of a cart and a uniform rod of length 2 × HALF, solved as two linear equations."""
    _place, speed, angle, turning = state
    inertia = cart.POLE * cart.HALF**2 * 4 / 3
    coupling = cart.POLE * cart.HALF * np.cos(angle)
    matrix = np.array([[cart.CART + cart.POLE, coupling], [coupling, inertia]])
    right = [force + cart.POLE * cart.HALF * turning**2 * np.sin(angle), cart.POLE * cart.GRAVITY * cart.HALF * np.sin(angle)]  # fmt: skip
    return [speed, np.linalg.solve(matrix, right)[0], turning, np.linalg.solve(matrix, right)[1]]


def test_a_second_of_the_cart_is_as_scipy_integrates_it():
    generator = np.random.default_rng(0)
    states = generator.uniform([-1, -2, -np.pi, -5], [1, 2, np.pi, 5], (4, 4))
    now = states
    for _ in range(50):
        now = cart.step(now, np.full(4, 3.0))
    for first, last in zip(states, now, strict=True):
        wanted = solve_ivp(mass_matrix_slopes, (0, 1), first, args=(3.0,), rtol=1e-10, atol=1e-12).y[:, -1]
        assert last == pytest.approx(wanted, abs=1e-3)


def test_left_alone_it_keeps_its_energy_and_the_feedback_is_the_best_for_it():
    now = np.array([[0.0, 0.5, 2.0, 1.0]])

    def whole(state):  # both kinetic energies, of the cart and of the rod about its middle, and the height
        _, speed, angle, turning = state[0]
        middle = np.array([speed + cart.HALF * turning * np.cos(angle), -cart.HALF * turning * np.sin(angle)])
        spin = cart.POLE * (2 * cart.HALF) ** 2 / 12 * turning**2 / 2
        return cart.CART * speed**2 / 2 + cart.POLE * middle @ middle / 2 + spin + cart.POLE * cart.GRAVITY * cart.HALF * np.cos(angle)  # fmt: skip

    before = whole(now)
    for _ in range(500):
        now = cart.step(now, np.zeros(1))
    assert whole(now) == pytest.approx(before, abs=1e-4)
    tiny, origin = 1e-6, np.zeros((1, 4))
    a = np.stack([cart.slopes(origin + tiny * axis, np.zeros(1))[0] / tiny for axis in np.eye(4)], 1)
    b = cart.slopes(origin, np.full(1, tiny)).T / tiny
    riccati = solve_continuous_are(a, b, np.diag([1.0, 1, 10, 1]), np.array([[0.1]]))
    assert (b.T @ riccati)[0] / 0.1 == pytest.approx(cart.HOLD, rel=1e-4)


def test_the_rule_swings_the_pole_up_random_pushes_do_not_and_a_lost_cart_stays_lost():
    generator = np.random.default_rng(1)
    first = cart.starts(20, generator)
    up, path = cart.attempt(cart.teacher, first)
    assert up[-1].mean() > 0.9
    assert not up[:20].any()
    assert up.shape == (cart.TICKS, 20)
    assert np.array_equal(path[0], first)
    assert cart.attempt(lambda now: generator.integers(0, 3, len(now)), first)[0].mean() < 0.05
    lost, path = cart.attempt(lambda now: np.full(len(now), 2), np.array([[2.0, 0.0, 0.0, 0.0]]))
    assert not lost[np.abs(path[:, 0, 0]).searchsorted(cart.TRACK) :].any()
    assert np.array_equal(path[-1], path[-2])


def test_a_net_says_what_scikit_learn_says_with_its_weights_and_the_rest_is_counted(monkeypatch):
    monkeypatch.setattr(many_domains, "UPDATES", 40)
    known, asked = many_domains.parts(load("digits"), 3)
    flat = load("digits").split(0.25, 3)[0].images.reshape(-1, 64).astype(np.float64)
    assert known.images == pytest.approx((flat - flat.mean(0)) / flat.std())
    nets, wrapped = [], many_domains.network_of
    monkeypatch.setattr(many_domains, "network_of", lambda *given, **options: nets.append(wrapped(*given, **options)) or nets[-1])  # fmt: skip
    net = many_domains.taught(known, (many_domains.HIDDEN,), 3)
    module = nets[0].module
    twin = MLPClassifier((many_domains.HIDDEN,)).partial_fit(known.images, known.labels, classes=np.arange(10))
    layers = (module.hidden1.sum, module.output.sum)
    twin.coefs_ = [layer.weight.numpy().T.astype(np.float64) for layer in layers]
    twin.intercepts_ = [layer.bias.numpy().astype(np.float64) for layer in layers]
    assert (twin.predict(asked.images) == net(asked.images)).mean() > 0.995  # float32 may tip a tie
    score = many_domains.accuracy(asked)
    assert score(net) == pytest.approx(twin.score(asked.images, asked.labels), abs=0.005)
    counts = [int((known.labels == label).sum()) for label in range(10)]
    assert score(many_domains.ways(known, 3)[3]) == np.mean(asked.labels == counts.index(max(counts)))


def test_the_nearest_example_is_the_nearest(monkeypatch):
    monkeypatch.setattr(many_domains, "taught", lambda *_: None)
    known, asked = many_domains.parts(load("tumours"), 0, each=True)
    nearest, shuffled = many_domains.ways(known, 0)[2], many_domains.mixed(known, 0)
    distances = ((asked.images[:, None] - known.images[None]) ** 2).sum(2)
    assert np.array_equal(nearest(asked.images), known.labels[distances.argmin(1)])
    assert np.bincount(shuffled.labels).tolist() == np.bincount(known.labels).tolist()
    assert not np.array_equal(shuffled.labels, known.labels)
    assert known.images.std(0) == pytest.approx(np.ones(30))


def test_one_domain_that_is_not_learned_or_needs_no_hidden_layer_changes_the_verdict():
    noise = np.random.default_rng(0).normal(0, 1e-3, (5, 5, 5))
    noise, chance = noise[:, :4], np.full(5, 0.25)
    good = np.tile(np.array([0.9, 0.7, 0.8, 0.2])[:, None], (5, 1, 5)) + noise
    assert many_domains.judged(good, chance, {}).verdict == "holds"
    flat, blind = good.copy(), good.copy()
    flat[1, 1] = flat[1, 0] + noise[1, 1]
    said = many_domains.judged(flat, chance, {})
    assert said.verdict == "partly"
    assert "medicine" not in said.measured.split("helps in")[1]
    blind[4, 3, 2] = 0.95
    assert many_domains.judged(blind, chance, {}).verdict == "not here"
    assert many_domains.judged(good, np.array([0.25, 0.25, 0.95, 0.25, 0.25]), {}).verdict == "not here"


def test_a_small_run_ends_in_a_verdict_and_repeats(monkeypatch):
    for name, value in {"STARTS": 2, "UPDATES": 40, "SOUNDS": 200, "LESSONS": 400, "ATTEMPTS": 4}.items():
        monkeypatch.setattr(many_domains, name, value)
    monkeypatch.setattr(cart, "TICKS", 60)
    monkeypatch.setattr(many_domains, "TICKS", 60)
    verdict, again = study("many_domains", seed=1), study("many_domains", seed=1)
    assert (verdict.measured, verdict.null) == (again.measured, again.null)
    assert verdict.verdict in ("holds", "partly", "not here")
    assert len(verdict.finding.checks) == 10
    assert all(view.text() for view in verdict.finding.views)
