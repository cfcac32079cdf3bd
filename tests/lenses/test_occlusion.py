"""Occlusion against one square at a time, and a net that detects a bright square which is planted in noise."""

import numpy as np
import pytest
import torch
from torch import nn

import neuralmine as nm
from neuralmine.errors import UsageError
from neuralmine.lenses.occlusion import places


def small(size=(17, 21)):
    torch.manual_seed(4)
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.Conv2d(6, 7, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, 4),
    )  # fmt: skip
    with torch.no_grad():
        module[6].weight.mul_(40)
    return nm.load(module, shape=(3, *size), labels=("ant", "bee", "cat", "dog"))


COLOURS = {"mean": 0.0, "black": 0.0, "grey": 0.5, "white": 1.0}


def by_brute_force(network, picture, target, window, stride, colour):
    """One square at a time, pixel by pixel, the last squares cut off by the edge."""
    rows, columns = picture.shape[1:]
    tops, lefts = [0], [0]
    for starts, size in ((tops, rows), (lefts, columns)):
        while starts[-1] + window < size:
            starts.append(starts[-1] + stride)
        while starts[-1] >= size:
            starts.pop()
    with torch.no_grad():
        whole = network.module(torch.as_tensor(picture[None]))[0].double().numpy()
        maps = network.module[:4](torch.as_tensor(picture[None]))[0].numpy()
    strongest = int(np.argmax([one.max() for one in maps]))
    shape = len(tops), len(lefts)
    found = {
        name: np.zeros(shape, int if name == "predicted" else float)
        for name in ("probability", "activity", "predicted", "score")
    }
    total, count = np.zeros((rows, columns)), np.zeros((rows, columns))
    for i, top in enumerate(tops):
        for j, left in enumerate(lefts):
            covered = picture.copy()
            for y in range(top, min(top + window, rows)):
                for x in range(left, min(left + window, columns)):
                    covered[:, y, x] = COLOURS[colour]
            with torch.no_grad():
                batch = torch.as_tensor(covered[None])
                scores = network.module(batch)[0].double().numpy()
                found["activity"][i, j] = network.module[:4](batch)[0, strongest].double().sum()
            odds = np.exp(scores - scores.max())
            found["probability"][i, j] = odds[target] / odds.sum()
            found["predicted"][i, j] = scores.argmax()
            found["score"][i, j] = scores[target]
            for y in range(top, min(top + window, rows)):
                for x in range(left, min(left + window, columns)):
                    total[y, x] += whole[target] - scores[target]
                    count[y, x] += 1
    found["map"] = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
    return found, tops, lefts, strongest


@pytest.mark.parametrize(
    ("window", "stride", "colour"),
    [(5, 4, "mean"), (5, 3, "white"), (6, 4, "black"), (17, 1, "grey"), (1, 7, "white"), (4, 9, "mean"), (3, 16, "white")],
)  # fmt: skip
def test_it_equals_one_square_at_a_time(window, stride, colour):
    network = small()
    picture = np.random.default_rng(window).uniform(0, 1, (3, 17, 21)).astype(np.float32)
    finding = nm.look(
        "occlusion",
        network,
        picture,
        target="bee",
        window=window,
        stride=stride,
        colour=colour,
        batch=5,
        evidence=False,
    )
    wanted, tops, lefts, strongest = by_brute_force(network, picture, 1, window, stride, colour)
    assert (finding.provenance["rows"], finding.provenance["columns"]) == (tops, lefts)
    assert finding.provenance["map"] == strongest
    assert finding.provenance["watched"] == "3"
    for name, slow in wanted.items():
        fast = finding.numbers[name]
        assert fast.shape == slow.shape, name
        assert np.abs(fast - slow).max() <= 1e-4 * max(1.0, np.abs(slow).max()), name
    place = np.unravel_index(int(wanted["probability"].argmin()), wanted["probability"].shape)
    top, left = tops[place[0]], lefts[place[1]]
    assert (
        f"rows {top} to {min(top + window, 17) - 1}, columns {left} to {min(left + window, 21) - 1};" in finding.summary
    )


def test_the_squares_reach_the_end_of_the_picture_and_no_further():
    for size in range(1, 24):
        for window in range(1, size + 1):
            for stride in range(1, window + 1):
                starts = places(size, window, stride)
                assert starts == list(range(0, starts[-1] + 1, stride))
                assert starts[-1] < size <= starts[-1] + window
                assert len(starts) == int(np.ceil((size - window) / stride)) + 1


def test_the_batch_changes_nothing():
    network = small()
    picture = np.random.default_rng(2).uniform(0, 1, (3, 17, 21)).astype(np.float32)
    one, all_ = (
        nm.look("occlusion", network, picture, window=6, stride=5, batch=batch, evidence=False) for batch in (1, 64)
    )
    for name, value in one.numbers.items():
        assert np.allclose(value, all_.numbers[name], atol=1e-5), name


def test_a_square_larger_than_the_picture_is_refused():
    with pytest.raises(UsageError, match="does not fit"):
        nm.look("occlusion", small(), np.zeros((3, 17, 21)), window=18)


class Detector(nn.Module):
    """Two classes; the score of "square" is how bright the brightest 6 × 6 pixels are, by weights set by hand."""

    def __init__(self):
        super().__init__()
        self.mean = nn.Conv2d(1, 1, 6)
        self.over = nn.ReLU()
        self.most = nn.AdaptiveMaxPool2d(1)
        self.head = nn.Linear(1, 2)
        with torch.no_grad():
            self.mean.weight.fill_(1 / 36)
            self.mean.bias.fill_(-0.55)  # the mean of the noise is 0.3
            self.head.weight.copy_(torch.tensor([[20.0], [0.0]]))
            self.head.bias.copy_(torch.tensor([0.0, 3.0]))

    def forward(self, pictures):
        return self.head(self.most(self.over(self.mean(pictures))).flatten(1))


def test_the_probability_falls_where_the_planted_object_is():
    """Forty random places: the square's place with the lowest probability touches the object, and so does the map's top."""
    network = nm.load(Detector(), shape=(1, 40, 40), labels=("square", "nothing"))
    generator = np.random.default_rng(8)
    lowest, highest = [], []
    for _ in range(40):
        picture = generator.uniform(0, 0.6, (1, 40, 40)).astype(np.float32)
        top, left = (int(v) for v in generator.integers(0, 35, 2))
        picture[:, top : top + 6, left : left + 6] = 0.95
        finding = nm.look("occlusion", network, picture, window=6, stride=3, evidence=False)
        assert finding.provenance["target"] == "square"
        at = np.unravel_index(int(finding.numbers["probability"].argmin()), finding.numbers["probability"].shape)
        # The middle of the covering square lies on the object.
        middle = finding.provenance["rows"][at[0]] + 3, finding.provenance["columns"][at[1]] + 3
        lowest.append(top <= middle[0] <= top + 6 and left <= middle[1] <= left + 6)
        y, x = np.unravel_index(int(finding.numbers["map"].argmax()), (40, 40))
        highest.append(top <= y < top + 6 and left <= x < left + 6)
    assert np.mean(lowest) >= 0.9, np.mean(lowest)
    assert np.mean(highest) >= 0.9, np.mean(highest)
