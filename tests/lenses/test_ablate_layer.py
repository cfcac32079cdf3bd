"""Networks with a layer replaced, run by hand in numpy and torch: a chain, a branch, and one with a way around."""

import numpy as np
import pytest
import torch

import neuralmine as nm
from neuralmine.errors import UsageError


class Around(torch.nn.Module):
    """Two branches that are added up; the second does next to nothing, and works in place."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(6, 6)
        self.side = torch.nn.Linear(6, 6)
        self.relu = torch.nn.ReLU(inplace=True)
        self.last = torch.nn.Linear(6, 3)

    def forward(self, x):
        h = self.first(x)
        return self.last(h + 0.1 * self.relu(self.side(x)))


@pytest.fixture(scope="module")
def around():
    torch.manual_seed(1)
    module = Around().double()
    images = np.random.default_rng(1).uniform(-1, 1, (50, 6)).clip(0, 1)
    with torch.no_grad():
        labels = module(torch.tensor(images)).argmax(1).numpy()
    labels[::7] = 0
    return (
        module,
        nm.load(module, shape=(6,), labels=("a", "b", "c")),
        nm.Dataset("made", images, labels, ("a", "b", "c")),
    )


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def by_hand(module, x, change):
    """The same network in numpy, with `change[name]` applied to what a layer puts out."""
    w = {name: value.detach().numpy() for name, value in module.state_dict().items()}

    def put_out(name, value):
        return change[name](value) if name in change else value

    h = put_out("first", x @ w["first.weight"].T + w["first.bias"])
    side = put_out("side", x @ w["side.weight"].T + w["side.bias"])
    side = put_out("relu", np.maximum(side, 0))
    return put_out("last", (h + 0.1 * side) @ w["last.weight"].T + w["last.bias"])


@pytest.mark.parametrize("how", ["mean", "zero"])
def test_every_layer_replaced_by_hand(around, how):
    module, net, data = around
    seen = nm.look("ablate_layer", net, data, how=how, limit=1000)
    new = {"mean": lambda v: np.repeat(v.mean(0, keepdims=True), len(v), 0), "zero": np.zeros_like}[how]
    assert seen.provenance["layers"] == ["first", "side", "relu", "last"]
    assert seen.numbers["images"].tolist() == list(range(50))
    for row, name in enumerate(seen.provenance["layers"]):
        scores = softmax(by_hand(module, data.images, {name: new}))
        assert seen.numbers["accuracy"][row] == pytest.approx((scores.argmax(1) == data.labels).mean())
        assert seen.numbers["probability"][row] == pytest.approx(scores[np.arange(50), data.labels].mean())
    whole = softmax(by_hand(module, data.images, {}))
    assert seen.numbers["clean"] == pytest.approx(
        [(whole.argmax(1) == data.labels).mean(), whole[np.arange(50), data.labels].mean()]
    )
    assert float(seen.numbers["constant"]) == max((data.labels == k).mean() for k in range(3))
    assert seen.numbers["accuracy"][1] > seen.numbers["accuracy"][0], "there is a way around the side branch"


def test_the_null_swaps_channels_alike_for_every_picture(around):
    module, net, data = around
    seen = nm.look("ablate_layer", net, data, limit=50, shuffles=2, seed=4).numbers
    generator = np.random.default_rng(4)
    generator.permutation(50)  # which pictures
    for row, (name, width) in enumerate((("first", 6), ("side", 6), ("relu", 6), ("last", 3))):
        found = []
        for _ in range(2):
            order = generator.permutation(width)
            scores = softmax(by_hand(module, data.images, {name: lambda v, o=order: v[:, o]}))
            found.append([(scores.argmax(1) == data.labels).mean(), scores[np.arange(50), data.labels].mean()])
        assert [seen["null_accuracy"][row], seen["null_probability"][row]] == pytest.approx(np.mean(found, 0))


def test_maps_by_hand():
    torch.manual_seed(2)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(inplace=True), torch.nn.Flatten(), torch.nn.Linear(144, 2)
    ).double()
    images = np.random.default_rng(2).uniform(0, 1, (37, 8, 8, 3))
    data = nm.Dataset("noise", images, np.arange(37) % 2, ("x", "y"))
    seen = nm.look("ablate_layer", nm.load(module, shape=(3, 8, 8)), data, limit=37, seed=3).numbers
    value = torch.tensor(images.transpose(0, 3, 1, 2))
    generator = np.random.default_rng(3)
    generator.permutation(37)
    with torch.no_grad():
        for row, part in enumerate(module):
            value = part(value).clone()
            mean = module[row + 1 :](value.mean(0, keepdim=True).expand_as(value).clone()).softmax(1).numpy()
            assert seen["probability"][row] == pytest.approx(mean[np.arange(37), data.labels].mean())
            swapped = module[row + 1 :](value[:, generator.permutation(value.shape[1])].clone()).softmax(1).numpy()
            assert seen["null_probability"][row] == pytest.approx(swapped[np.arange(37), data.labels].mean())


def test_in_a_chain_every_replaced_layer_gives_one_answer_for_all(net, digits):
    seen = nm.look("ablate_layer", net, digits, limit=60, seed=1).numbers
    labels = digits.labels[seen["images"]]
    shares = {round(float((labels == k).mean()), 12) for k in range(10)}
    assert {round(float(a), 12) for a in seen["accuracy"]} <= shares
    assert len(seen["images"]) == 60
    assert seen["clean"][0] > 0.9


def test_classes_are_found_by_name(net, digits):
    two = digits.only(("7", "3"))
    seen = nm.look("ablate_layer", net, two, limit=1000, most=1).numbers
    said = net.module(net.encode(two.images)).argmax(1).numpy()
    assert float(seen["clean"][0]) == pytest.approx((said == np.array([7, 3])[two.labels]).mean())
    assert seen["accuracy"].shape == (1,)


def test_answers_that_are_not_the_classes(net, digits):
    strange = nm.Dataset("strange", digits.images[:4], digits.labels[:4] * 0, ("cat", "dog"))
    with pytest.raises(UsageError, match="10 labels"):
        nm.look("ablate_layer", net, strange)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))
    with pytest.raises(UsageError, match="not the same"):
        nm.look("ablate_layer", nm.load(module, shape=(8, 8), labels=("fox", "owl")), strange)
