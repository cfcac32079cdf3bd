"""The claims about layers, features, tasks, cues and descent: small runs end in a verdict, and each verdict can fail."""

import numpy as np
import pytest

from neuralmine.studies import (
    _digit_cnn,
    adapts_to_tasks,
    hidden_subsections,
    hop_down,
    increasingly_abstract,
    learned_features,
    lowering_its_loss,
    patterns_of_patterns,
    study,
    task_relevant,
    unnoticed_cue,
)


@pytest.fixture
def small(monkeypatch):
    """Fewer starts, sizes and steps: the same code on less."""
    for module, settings in (
        (increasingly_abstract, {"STARTS": 2}),
        (task_relevant, {"STARTS": 2}),
        (learned_features, {"STARTS": 2, "SIZES": (60, 300), "UPDATES": 60}),
        (adapts_to_tasks, {"STARTS": 2, "EACH": (5, 20), "UPDATES": 20}),
        (unnoticed_cue, {"STARTS": 2, "TRAINING": 400, "TEST": 200}),
        (lowering_its_loss, {"STARTS": 1, "STEPS": 60, "EPOCHS": 2}),
        (hop_down, {"STARTS": 1, "PICTURES": 150}),
        (hidden_subsections, {"STARTS": 1, "NULLS": 20, "TRAINING": {**hidden_subsections.TRAINING, "epochs": 8}}),
        (patterns_of_patterns, {"STARTS": 2, "TRAINING": {**patterns_of_patterns.TRAINING, "epochs": 3}}),
    ):
        for name, value in settings.items():
            monkeypatch.setattr(module, name, value)


@pytest.mark.parametrize("name", ["adapts_to_tasks", "hidden_subsections", "hop_down", "increasingly_abstract", "learned_features", "lowering_its_loss", "patterns_of_patterns", "task_relevant", "unnoticed_cue"])  # fmt: skip
def test_a_small_run_ends_in_a_verdict_with_its_evidence(name, small):
    verdict = study(name, seed=1)
    assert verdict.verdict in ("holds", "partly", "not here")
    assert len(verdict.finding.checks) >= 2
    assert all(text for text in (verdict.quote, verdict.source, verdict.would_prove, verdict.measured, verdict.null))
    if name in ("hop_down", "task_relevant"):
        again = study(name, seed=1)
        assert (again.measured, again.null) == (verdict.measured, verdict.null)


def test_untrained_nets_are_neither_abstract_nor_task_relevant():
    seen = dict(_digit_cnn.measured(1, 2))
    assert increasingly_abstract.judged(seen).verdict in ("holds", "partly")
    swapped = {name: seen[name.replace("_trained", "_untrained") if "_trained" in name else name] for name in seen}
    assert increasingly_abstract.judged(swapped).verdict == "not here"
    assert task_relevant.judged(swapped).verdict == "not here"


def test_a_perfect_hierarchy_would_hold():
    up, flat = np.tile(np.linspace(0.3, 0.8, 6), (3, 1)), np.full((3, 6), 0.3)
    seen = {
        "class_trained": up, "class_untrained": flat, "probe_trained": up, "probe_untrained": flat,
        "pixels_trained": 1 - np.tile(np.linspace(0, 0.9, 6), (3, 1)), "pixels_untrained": np.full((3, 6), 0.9),
    }  # fmt: skip
    assert increasingly_abstract.judged(seen).verdict == "holds"
    assert task_relevant.judged(seen).verdict == "holds"


def test_learned_features_must_beat_pixels_and_random_ones():
    noise = np.random.default_rng(0).normal(0, 1e-3, (3, 4, 2))
    sizes = (60, 300)
    kinds = lambda pixels, learned, blank: np.array([pixels, learned, blank])[:, None, None] + noise  # noqa: E731
    assert learned_features.judged(kinds(0.8, 0.9, 0.85), sizes).verdict == "holds"
    assert learned_features.judged(kinds(0.8, 0.9, 0.9), sizes).verdict == "partly"
    assert learned_features.judged(kinds(0.8, 0.8, 0.8), sizes).verdict == "not here"


def test_transfer_must_beat_scratch_and_random_features():
    noise = np.random.default_rng(0).normal(0, 1e-3, (4, 4, 2))
    ways = lambda *means: np.array(means)[:, None, None] + noise  # noqa: E731
    assert adapts_to_tasks.judged(ways(0.9, 0.8, 0.8, 0.8), (5, 20)).verdict == "holds"
    assert adapts_to_tasks.judged(ways(0.9, 0.8, 0.9, 0.8), (5, 20)).verdict == "partly"
    assert adapts_to_tasks.judged(ways(0.8, 0.9, 0.8, 0.8), (5, 20)).verdict == "not here"


def test_the_cue_is_small_adds_nothing_and_leaves_eight_bits():
    generator = np.random.default_rng(0)
    cue = unnoticed_cue.pattern(generator)
    assert set(np.unique(cue)) == {-2.0, 2.0}
    assert not cue.reshape(16, 2, 16, 2).sum((1, 3)).any()
    plain, labels = generator.uniform(0, 1, (5, 32, 32)), np.array([0, 1, 0, 1, 1])
    made = unnoticed_cue.pictures(plain, labels, cue, np.random.default_rng(3))
    without = unnoticed_cue.pictures(plain, labels, cue * 0, np.random.default_rng(3))
    assert np.array_equal(made - without, np.where(labels, 1, -1)[:, None, None] * cue)
    assert np.array_equal(made, np.rint(made))
    assert made.min() >= 0
    assert made.max() <= 255
    # The published formula by hand, at a dark, the middle and a light grey.
    assert unnoticed_cue.just_noticeable(np.array([32, 127, 191])) == pytest.approx(
        [17 * (1 - (32 / 127) ** 0.5) + 3, 3, 4.5]
    )


def test_a_net_that_finds_nothing_and_one_that_needs_no_cue_do_not_hold():
    blank = {"planted": np.zeros((4, 4)), "without": np.zeros((4, 4)), "cue": np.zeros((4, 4))}
    rows = lambda *means: np.tile(np.array(means)[:, None], 3)  # noqa: E731
    assert unnoticed_cue.judged(rows(1.0, 1.0, 0.5, 0.5), blank).verdict == "partly"
    assert unnoticed_cue.judged(rows(0.5, 0.5, 0.5, 0.5), blank).verdict == "not here"
    assert unnoticed_cue.judged(rows(1.0, 1.0, 0.9, 0.5), blank).verdict == "not here"
    plain = {"planted": np.full((4, 4), 127.0), "without": np.full((4, 4), 127.0)}  # seen from 3 grey levels on
    for size, verdict in ((2.0, "partly"), (4.0, "not here")):
        cue = {**plain, "cue": np.full((4, 4), size)}
        assert unnoticed_cue.judged(rows(1.0, 1.0, 0.5, 0.5), cue).verdict == verdict


def test_descent_on_a_convex_loss_is_the_closed_form(digits, monkeypatch):
    monkeypatch.setattr(lowering_its_loss, "STEPS", 25)
    from neuralmine.architectures import build
    from neuralmine.networks.torch_module import network_of

    data = digits.take(slice(0, 120))
    top = lowering_its_loss.curvature(data)
    module = build({"sizes": [64, 10], "output": "linear", "seed": 4})
    first = np.vstack([module.output.sum.weight.detach().numpy().T, module.output.sum.bias.detach().numpy()])
    path = lowering_its_loss.descent(network_of(module, shape=(8, 8), loss="squared"), data, 1.5 / top)
    # W(t) − W* = (I − rate × H)^t (W(0) − W*), in the directions of the Hessian's eigenvectors.
    x, y = np.column_stack([data.images.reshape(120, 64), np.ones(120)]).astype(np.float64), np.eye(10)[data.labels]
    values, vectors = np.linalg.eigh(2 * x.T @ x / 120)
    assert values[-1] == pytest.approx(top)
    least = np.linalg.lstsq(x, y, rcond=None)[0]
    for step in (1, 10, 25):
        shrunk = vectors @ ((1 - 1.5 / top * values)[:, None] ** step * (vectors.T @ (first - least)))
        assert path[step] == pytest.approx(((x @ (least + shrunk) - y) ** 2).sum() / 120, rel=1e-6)


def test_a_loss_that_rises_or_a_limit_that_is_wrong_does_not_hold():
    down, up = np.tile(0.9 ** np.arange(10.0), (1, 1)), np.tile(1.1 ** np.arange(10.0), (1, 1))
    real = np.array([[2.0, 1.0, 0.5]])

    def judged(rows, real=real):
        seen = {"losses": np.stack(rows), "limit": np.array(0.1), "real": real}
        return lowering_its_loss.judged(seen).verdict

    assert judged([down] * 4 + [up] * 2) == "holds"
    assert judged([down] * 6) == "partly"
    assert judged([up] * 6) == "partly"
    assert judged([down] * 4 + [up] * 2, real[:, ::-1]) == "not here"


def test_hops_that_do_not_lower_the_loss_do_not_hold():
    good = np.array([[0, 1.0 + i, -0.1 * (1 + i), 3 - 0.1 * i, 2.9 - 0.1 * i, 3.2, 1] for i in range(10)])
    assert hop_down.judged(good, {}).verdict == "holds"
    one_up = good.copy()
    one_up[3, 4] = 3.5
    assert hop_down.judged(one_up, {}).verdict == "not here"
    either_way = good.copy()
    either_way[:, 5] = 2.0
    assert hop_down.judged(either_way, {}).verdict == "partly"


def test_a_drawn_stroke_is_found_and_noise_or_untrained_weights_are_not():
    generator = np.random.default_rng(0)
    bank = np.concatenate(list(hidden_subsections.strokes().values()))
    drawn = np.zeros((1, 8, 8))
    drawn[0, 1:7, 3] = drawn[0, 1:7, 4] = 1.0
    by_hand = [np.corrcoef(drawn.ravel(), shape.ravel())[0, 1] for shape in bank]
    assert hidden_subsections.correlations(drawn, bank)[0] == pytest.approx(by_hand)
    assert max(by_hand) > 0.7
    noise = generator.normal(size=(40, 8, 8))
    fits = np.abs(hidden_subsections.correlations(noise, bank))
    null = np.stack(
        [np.abs(hidden_subsections.correlations(generator.normal(size=(40, 8, 8)), bank)).max(1) for _ in range(300)]
    )
    said = hidden_subsections.judged(noise, fits, null, fits.max(1), np.zeros(40), 0.1)
    assert said.verdict == "not here"
    strokes = bank[generator.permutation(len(bank))[:40]] + generator.normal(0, 0.05, (40, 8, 8))
    fits = np.abs(hidden_subsections.correlations(strokes, bank))
    assert hidden_subsections.judged(strokes, fits, null, null[0], np.full(40, 0.01), 0.9).verdict == "partly"


def test_a_second_layer_that_only_passes_on_the_first_combines_nothing():
    import torch

    from neuralmine.networks.catalogue import load_preset

    digits_ = patterns_of_patterns.load("digits").take(slice(0, 200))
    network = load_preset("64-16-16-10", trained=False, seed=3)
    with torch.no_grad():
        network.module.hidden2.sum.weight.copy_(torch.eye(16) * 4)
    seen = patterns_of_patterns._measured(network, digits_.images, digits_.labels)
    assert seen["parts"] == pytest.approx(np.ones(16))
    assert seen["second"] == pytest.approx(seen["first"])
    # The receptive field through the first layer is the mean slope by each pixel, as autograd has it.
    inputs = network.encode(digits_.images).requires_grad_()
    hidden = network.module.hidden2.sum(network.module.hidden1(network.module.flatten(inputs)))
    (slope,) = torch.autograd.grad(hidden[:, 5].sum(), inputs)
    assert seen["field"][5] == pytest.approx(slope.mean(0).numpy())
    kinds = {name: np.stack([value, value + 1e-6]) for name, value in seen.items()}
    untrained = {f"{name}_untrained": value for name, value in kinds.items()}
    said = patterns_of_patterns.judged({**kinds, **untrained, "accuracy": np.full((2, 2), 0.9)})
    assert said.verdict == "not here"
