"""Every number that is shown, computed again by other means: numpy by hand, autograd, differences, scikit-learn."""

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from sklearn.metrics import confusion_matrix, roc_auc_score

import neuralmine as nm
from neuralmine.architectures import build
from neuralmine.networks.catalogue import WEIGHTS

FIVE = [
    0.0, 0.125, 1.0, 1.0, 1.0, 0.875, 0.3125, 0.0, 0.0, 0.5625, 1.0, 0.6875, 0.375, 0.5, 0.1875, 0.0, 0.0, 0.5625, 1.0, 0.125,
    0.0, 0.0, 0.0, 0.0, 0.0, 0.1875, 1.0, 0.8125, 0.0625, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 1.0, 0.75, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
    0.75, 1.0, 0.25, 0.0, 0.0, 0.0, 0.0, 0.0625, 0.6875, 1.0, 0.375, 0.0, 0.0, 0.0, 0.25, 1.0, 1.0, 0.5, 0.0, 0.0, 0.0,
]  # fmt: skip


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


@pytest.fixture(scope="module")
def by_hand():
    w = load_file(WEIGHTS / "64-16-10.safetensors")

    def forward(images):
        x = images.reshape(len(images), -1).astype(np.float64)
        first = x @ w["hidden1.sum.weight"].T + w["hidden1.sum.bias"]
        second = sigmoid(first) @ w["output.sum.weight"].T + w["output.sum.bias"]
        return x, first, sigmoid(first), second, sigmoid(second)

    return w, forward


def test_the_essays_five_is_image_201(digits):
    assert np.abs(digits.images[201].ravel() - np.array(FIVE)).sum() == 0
    assert digits.labels[201] == 5
    assert (digits.images.min(), digits.images.max()) == (0, 1)


def test_activations_equal_the_forward_pass_by_hand(by_hand, net, digits):
    _, forward = by_hand
    for index in (0, 201, 1796):
        seen = nm.look("activations", net, digits.images[index]).numbers
        _, first, hidden, second, output = forward(digits.images[index : index + 1])
        for name, wanted in (("hidden1.sum", first), ("hidden1", hidden), ("output.sum", second), ("output", output)):
            assert np.abs(seen[name] - wanted[0]).max() < 1e-12


def test_a_neurons_terms_equal_pixel_times_weight(by_hand, net, digits):
    w, forward = by_hand
    seen = nm.look("neuron", net, digits.images[201], layer="hidden1", unit=9).numbers
    assert np.abs(seen["products"] - np.array(FIVE) * w["hidden1.sum.weight"][9]).max() < 1e-15
    assert float(seen["activation"]) == pytest.approx(forward(digits.images[201:202])[2][0, 9], abs=1e-12)
    assert seen["curve"][:, 1] == pytest.approx(sigmoid(seen["curve"][:, 0]), abs=1e-12)
    slopes = sigmoid(seen["curve"][:, 0]) * (1 - sigmoid(seen["curve"][:, 0]))
    assert seen["curve"][:, 2] == pytest.approx(slopes, abs=1e-12)


def test_backprop_equals_the_formulas_and_autograd(by_hand, net, digits):
    w, forward = by_hand
    index, label, rate = 7, int(digits.labels[7]), 0.25
    x, _, hidden, _, output = forward(digits.images[index : index + 1])
    ideal = np.eye(10)[label]
    delta2 = 2 * (output[0] - ideal) * output[0] * (1 - output[0])
    delta1 = (w["output.sum.weight"].T @ delta2) * hidden[0] * (1 - hidden[0])
    seen = nm.look("backprop", net, digits.images[index], target=str(label), lr=rate).numbers
    assert np.abs(seen["output.gradient"] - np.outer(delta2, hidden[0])).max() < 1e-12
    assert np.abs(seen["hidden1.gradient"] - np.outer(delta1, x[0])).max() < 1e-12
    assert float(seen["loss"]) == pytest.approx(((output[0] - ideal) ** 2).sum(), abs=1e-12)
    images = net.encode(digits.images[index])
    loss = ((net.module(images)[0] - torch.tensor(ideal)) ** 2).sum()
    names = ("hidden1.sum.weight", "output.sum.weight")
    slopes = torch.autograd.grad(loss, [net.module.get_parameter(name) for name in names])
    for slope, mine in zip(slopes, ("hidden1.gradient", "output.gradient"), strict=True):
        assert np.abs(slope.numpy() - seen[mine]).max() < 1e-7


def test_every_share_of_a_small_net_equals_central_differences(digits):
    net = nm.load(build({"sizes": [64, 3, 2], "activation": "tanh", "output": "linear"}), shape=(8, 8))
    seen = nm.look("backprop", net, digits.images[3], target=1).numbers
    inputs, step = net.encode(digits.images[3]), 1e-5

    def loss():
        with torch.no_grad():
            return -net.module(inputs)[0].log_softmax(0)[1].item()

    for block in ("hidden1", "output"):
        weight = net.module.get_parameter(f"{block}.sum.weight").data
        gradient = np.zeros(weight.shape)
        for where in np.ndindex(*weight.shape):
            value = weight[where].item()
            weight[where] = value + step
            above = loss()
            weight[where] = value - step
            gradient[where] = (above - loss()) / (2 * step)
            weight[where] = value
        scale = np.abs(gradient).max()
        assert np.abs(gradient - seen[f"{block}.gradient"]).max() / scale < 1e-5


def test_loss_confusion_and_threshold_equal_other_libraries(by_hand, net, digits):
    _, forward = by_hand
    output = forward(digits.images)[-1]
    loss = nm.look("loss", net, digits).numbers
    parts = (output - np.eye(10)[digits.labels]) ** 2
    assert np.abs(loss["per_output"] - parts).max() < 1e-9
    assert float(loss["total"]) == pytest.approx(parts.sum(), abs=1e-9)
    counts = nm.look("confusion", net, digits).numbers["counts"]
    assert np.array_equal(counts, confusion_matrix(digits.labels, output.argmax(1)))
    line = nm.look("threshold", net, digits, unit=8, positive=8).numbers
    assert float(line["auc"]) == pytest.approx(roc_auc_score(digits.labels == 8, output[:, 8]), abs=1e-12)
    assert float(line["accuracy_at"]) == np.mean((output[:, 8] > 0.5) == (digits.labels == 8))


def test_the_weight_curve_equals_brute_force(digits, net):
    some = digits.take(slice(0, 100))
    curve = nm.look("weight_curve", net, some, layer="hidden1", unit=2, source=20, span=1.0, points=5).numbers
    for value, loss in zip(curve["values"], curve["loss"], strict=True):
        moved = nm.edited(net, weights={"hidden1.sum.weight": [((2, 20), float(value))]})
        assert float(nm.look("loss", moved, some).numbers["mean"]) == pytest.approx(loss, abs=1e-9)


def test_what_the_essays_say_of_one_neuron():
    one = nm.load("64-1")
    image = np.zeros((8, 8))
    image[2:6, 2:6] = 1
    region = nm.edited(one, weights={"output.sum.weight": [((0, i), float(i in (27, 28))) for i in range(64)]})
    drawn = np.random.default_rng(0).uniform(0, 1, (8, 8))
    seen = nm.look("neuron", region, drawn, layer="output", unit=0).numbers  # 003-8: the sum over the region
    assert float(seen["sum"]) == pytest.approx(drawn[3, 3] + drawn[3, 4], abs=1e-12)
    best = max(
        float(nm.look("neuron", one, p, unit=0).numbers["sum"])
        for p in np.random.default_rng(1).uniform(0, 1, (200, 8, 8))
    )
    assert float(nm.look("neuron", one, image, unit=0).numbers["sum"]) > best  # 003-9: bright in a dark surround
    biased = nm.load(build({"sizes": [64, 2]}), shape=(8, 8), loss="squared")
    changes = {"output.sum.weight": [((0, i), 1.0) for i in range(64)], "output.sum.bias": [((0,), -10.0)]}
    biased = nm.edited(biased, weights=changes)
    for ink, lit in ((9.99, False), (10.01, True)):  # 003-11: lit when the sum is above 10
        picture = np.zeros(64)
        picture[:11] = ink / 11
        assert (float(nm.look("neuron", biased, picture, unit=0).numbers["activation"]) > 0.5) is lit
    assert sum(p.numel() for p in nm.load("784-16-16-10").module.parameters()) == 13_002


def test_a_thousand_forwards_leave_the_weights_as_they_were(net, digits):
    from neuralmine.lens import weights_hash

    before = weights_hash(net)
    for i in range(1000):
        nm.trace(net, digits.images[i])
    assert weights_hash(net) == before
