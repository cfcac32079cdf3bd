"""Intervals against scipy, statsmodels' published example, and coins."""

import numpy as np
import pytest
from scipy import stats

from neuralmine.intervals import holm, paired, wilson


@pytest.mark.parametrize(("right", "count"), [(0, 7), (7, 7), (3, 11), (431, 450)])
def test_wilson_is_scipys(right, count):
    found = stats.binomtest(right, count).proportion_ci(0.95, "wilson")
    assert wilson(right, count) == pytest.approx((found.low, found.high), abs=1e-6)


def test_a_paired_difference_is_scipys_t_test_and_overlap_widens_it():
    a, b = np.random.default_rng(2).normal(size=(2, 9))
    mean, interval, p = paired(a - b)
    found = stats.ttest_rel(a, b)
    assert p == pytest.approx(found.pvalue)
    assert interval == pytest.approx(tuple(found.confidence_interval()))
    _, wider, larger = paired(a - b, overlap=1 / 3)
    assert (wider[1] - mean) / (interval[1] - mean) == pytest.approx(np.sqrt((1 / 9 + 1 / 3) / (1 / 9)))
    assert larger > p
    assert paired([0.0, 0.0, 0.0]) == (0.0, (0.0, 0.0), 1.0)


def test_holm_keeps_the_chance_of_any_false_alarm():
    # Holm 1979 by its definition: the k-th smallest of m is compared with α / (m − k + 1), and the first failure ends it.
    generator = np.random.default_rng(0)
    for _ in range(50):
        p = generator.random(6) ** 3
        refused, order = np.zeros(6, bool), np.argsort(p)
        for k, i in enumerate(order):
            if p[i] > 0.05 / (6 - k):
                break
            refused[i] = True
        assert ((holm(p) <= 0.05) == refused).all()
