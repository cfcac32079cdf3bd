"""Toy problems: the bound for lines by brute force, the shapes by their own geometry."""

import numpy as np
import pytest

from neuralmine import datasets
from neuralmine.errors import UnknownName, UsageError


def best_line(points, labels, generator, count=20_000):
    """The best of many random lines, either side for either class."""
    normals = generator.standard_normal((count, 2))
    offsets = (normals * points[generator.integers(0, len(points), count)]).sum(1) + 1e-3 * generator.standard_normal(
        count
    )
    right = ((normals @ points.T > offsets[:, None]) == labels).mean(1)
    return float(np.maximum(right, 1 - right).max())


@pytest.mark.parametrize("noise", [0.0, 0.3, 1.0])
def test_no_line_is_right_on_more_than_three_quarters_of_xor(noise):
    data = datasets.load("xor", points=80, noise=noise, seed=4)
    for part in (data, *data.split()):
        assert best_line(part.images, part.labels, np.random.default_rng(0)) <= 0.75
    four = datasets.load("xor", points=8, noise=0).take(slice(0, 4))
    assert best_line(four.images, four.labels, np.random.default_rng(1)) == 0.75


def test_three_quarters_is_reached_on_separate_clusters():
    data = datasets.load("xor")
    assert best_line(data.images, data.labels, np.random.default_rng(0)) > 0.72


def test_the_class_of_xor_is_whether_the_signs_differ():
    data = datasets.load("xor", seed=9)
    assert np.array_equal(data.labels, (np.sign(data.images[:, 0]) != np.sign(data.images[:, 1])).astype(int))
    train, test = data.split(seed=7)
    assert (len(train), len(test)) == (148, 52)
    assert len(train) % 4 == len(test) % 4 == 0
    # Each four is a square of side 1.2, whatever its shift.
    fours = data.images.reshape(-1, 4, 2)
    assert np.allclose(fours.max(1) - fours.min(1), 1.2)


def test_a_spiral_winds_and_the_other_is_its_half_turn():
    data = datasets.load("spirals", noise=0.0, turns=2.0, seed=1)
    first, second = data.images[data.labels == 0], data.images[data.labels == 1]
    assert np.allclose(first, -second)
    radius, angle = np.hypot(*first.T), np.arctan2(first[:, 1], first[:, 0])
    assert np.allclose(np.exp(1j * angle), np.exp(2j * np.pi * 2.0 * radius))


def test_a_disc_and_a_ring():
    data = datasets.load("circles", noise=0.0)
    radius = np.hypot(*data.images.T)
    assert radius[data.labels == 0].max() <= 0.4
    assert 0.7 <= radius[data.labels == 1].min() <= radius.max() <= 1


@pytest.mark.parametrize("name", list(datasets.TOYS))
def test_the_seed_alone_decides_and_noise_is_bounded(name):
    one, same, other = (datasets.load(name, seed=s) for s in (3, 3, 4))
    assert np.array_equal(one.images, same.images)
    assert not np.array_equal(one.images, other.images)
    assert name in datasets.names()
    if name != "xor":
        still, moved = datasets.load(name, noise=0.0), datasets.load(name, noise=0.1)
        assert 0 < np.abs(still.images - moved.images).max() <= 0.1


def test_what_cannot_be_made_is_refused():
    for options in ({"points": 10}, {"points": 4}, {"noise": -0.1}, {"noise": 2}):
        with pytest.raises(UsageError, match="must"):
            datasets.load("xor", **options)
    with pytest.raises(UsageError, match="turns"):
        datasets.load("spirals", turns=0)
    with pytest.raises(UnknownName, match="spirals"):
        datasets.toy("spiral")
    with pytest.raises(UsageError, match="turns"):
        datasets.load("xor", turns=2)


def test_two_numbers_can_be_raced_over():
    import neuralmine as nm
    from neuralmine.architectures import build
    from neuralmine.races import race_steps

    network = nm.load(build({"sizes": [2, 3, 1], "activation": "tanh"}), shape=(2,), loss="squared")
    *_, last = race_steps(network, datasets.load("xor"), optimizers="sgd,adam", steps=30, lr="sgd=1,adam=0.1", batch=40)
    assert last.losses["adam"] < 0.2
