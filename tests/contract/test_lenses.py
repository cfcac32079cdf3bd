"""What every lens promises, checked on each one that is found: a new file in `lenses/` is checked unasked."""

import inspect
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

import neuralmine as nm
from neuralmine.errors import UnknownName, UsageError
from neuralmine.lens import find, summaries, weights_hash
from neuralmine.stores.findings import load_finding
from neuralmine.wire import frame

LENSES = list(summaries())
NEEDED = {
    "compare_sentences": {"other": "The dog chases the cat"},
    # These train many networks: fewer and shorter here.
    "data_scaling": {"sizes": 3, "seeds": 2, "updates": 20},
    "training_ablation": {"ingredients": "cosine,weight_decay,augmentation", "seeds": 2, "epochs": 2},
}


@pytest.fixture(scope="module", autouse=True)
def _dissimilarities(tmp_path_factory):
    """Somebody's dissimilarities of the 120 digits: two subjects."""
    file = tmp_path_factory.mktemp("dissimilarities") / "two.npy"
    np.save(file, np.random.default_rng(0).uniform(size=(2, 120 * 119 // 2)))
    NEEDED["rsa_against"] = {"matrix": str(file), "shuffles": 20, "bootstraps": 20}


def generic():
    """A user's module: training mode, gradients, a frozen parameter, an in-place layer, dropout, a random state of its own."""
    torch.manual_seed(5)
    module = torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(64, 12),
        torch.nn.ReLU(inplace=True),
        torch.nn.Dropout(0.5),
        torch.nn.Linear(12, 10),
    )
    module.train()
    module[1].weight.grad = torch.ones_like(module[1].weight)
    module[4].bias.requires_grad_(False)
    return nm.load(module, shape=(8, 8))


@pytest.fixture(scope="module")
def reader(word_tokenizer):
    """A tiny language model with random weights."""
    transformers = pytest.importorskip("transformers")
    from neuralmine.networks.text import text_network

    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=15, n_embd=16, n_layer=2, n_head=2, n_positions=64)
    return text_network(transformers.GPT2LMHeadModel(config), word_tokenizer)


def seeing():
    """A small convolutional net with random weights, and pictures of two classes for it."""
    torch.manual_seed(3)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3),
        torch.nn.ReLU(inplace=True),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(6, 8, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 2),
    )
    generator = np.random.default_rng(4)
    pictures = generator.uniform(0, 1, (24, 18, 18, 3)).astype(np.float32)
    pictures[::2, 4:12, 4:12, 0] = 1.0
    data = nm.Dataset("squares", pictures, np.arange(24) % 2, ("red square", "none"))
    return nm.load(module, shape=(3, 18, 18), labels=data.classes), data


@pytest.fixture(scope="module", params=["digits", "generic"])
def network(request):
    return nm.load("digits") if request.param == "digits" else generic()


@pytest.fixture(scope="module")
def small():
    return nm.datasets.load("digits").take(slice(0, 120))


def nouns_for(name, network, small, reader):
    spec = find(name)
    given = small.images[7]
    if spec.reads == "tokens":
        network, given = reader, "the cat chases mice"
    elif spec.reads == "pixels" or "b c h w" in spec.on:
        network, small = seeing()
        given = small.images[6]
    return network, [{"network": network, "input": given, "data": small}[noun] for noun in spec.nouns]


def seen(name, network, small, reader):
    _, nouns = nouns_for(name, network, small, reader)
    return nm.look(name, *nouns, **NEEDED.get(name, {}))


@pytest.mark.parametrize("name", LENSES)
def test_same_numbers_twice_finite_and_numpy_only(name, network, small, reader):
    first, again = seen(name, network, small, reader), seen(name, network, small, reader)
    assert first.numbers
    assert first.numbers.keys() == again.numbers.keys()
    for key, value in first.numbers.items():
        assert isinstance(value, np.ndarray), key
        assert np.array_equal(value, again.numbers[key]), key
        assert np.isfinite(value.astype(float)).all(), key
    assert first.summary == again.summary
    assert len(frame(first)) > 100


@pytest.mark.parametrize("name", LENSES)
def test_nothing_is_left_behind(name, network, small, reader):
    network, nouns = nouns_for(name, network, small, reader)
    module = network.module
    before = (
        weights_hash(network),
        [part.training for part in module.modules()],
        [p.requires_grad for p in module.parameters()],
        [None if p.grad is None else p.grad.clone() for p in module.parameters()],
        sum(
            len(part._forward_hooks) + len(part._forward_pre_hooks) + len(part._backward_hooks)
            for part in module.modules()
        ),
    )
    torch.manual_seed(11), np.random.seed(12), random.seed(13)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    nm.look(name, *nouns, **NEEDED.get(name, {}))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]
    assert weights_hash(network) == before[0]
    assert [part.training for part in module.modules()] == before[1]
    assert [p.requires_grad for p in module.parameters()] == before[2]
    for parameter, gradient in zip(module.parameters(), before[3], strict=True):
        assert (parameter.grad is None) == (gradient is None)
        assert gradient is None or torch.equal(parameter.grad, gradient)
    hooks = sum(len(p._forward_hooks) + len(p._forward_pre_hooks) + len(p._backward_hooks) for p in module.modules())
    assert hooks == before[4]


@pytest.mark.parametrize("name", LENSES)
def test_findings_survive_the_disk_and_views_can_be_drawn(name, small, reader, tmp_path):
    finding = seen(name, nm.load("digits"), small, reader)
    assert finding.lens == name
    assert finding.provenance["neuralmine"]
    again = load_finding(finding.save(tmp_path / name))
    for key, value in finding.numbers.items():
        assert np.array_equal(value, again.numbers[key])
    assert [view.kind for view in again.views] == [view.kind for view in finding.views]
    assert again.checks == finding.checks
    for view in finding.views[:3]:
        assert view.text().strip()
        assert view.to_svg() == view.to_svg()
        assert view.to_png()[:8] == b"\x89PNG\r\n\x1a\n"
    for check in finding.checks:
        assert check.name
        assert check.meaning


@pytest.mark.parametrize("name", LENSES)
def test_the_signature_is_documented(name):
    spec = find(name)
    doc = inspect.getdoc(spec.function) or ""
    assert spec.summary.endswith((".", "?"))
    assert ">>> " in doc, "a public function shows an example"
    for option in spec.options:
        assert option.help, f"the option {option.name} is not explained"


@pytest.mark.parametrize("name", LENSES)
def test_wrong_options_say_what_is_right(name, small, reader):
    network, nouns = nouns_for(name, nm.load("digits"), small, reader)
    with pytest.raises(UnknownName):
        nm.look(name, *nouns, nonsense=1)
    for option in find(name).options:
        if option.between:
            with pytest.raises(UsageError, match="must lie"):
                nm.look(name, *nouns, **{**NEEDED.get(name, {}), option.name: option.between[1] + 1})
        if option.type == "layer":
            with pytest.raises((UnknownName, UsageError), match=r"Did you mean|There is"):
                nm.look(name, *nouns, **{**NEEDED.get(name, {}), option.name: network.layers[1].name + "x"})
    with pytest.raises(UsageError):
        nm.look(name)


def test_a_misspelt_lens_is_corrected():
    with pytest.raises(UnknownName, match="'neuron'"):
        nm.look("nueron")


def test_the_listed_line_is_the_first_of_the_docstring():
    assert summaries() == {name: inspect.getdoc(find(name).function).split("\n")[0] for name in LENSES}


@pytest.mark.parametrize("code", ["import neuralmine", "from neuralmine.lens import summaries; summaries()",
                                  "from neuralmine.lens import find, summaries; [find(n) for n in summaries()]"])  # fmt: skip
def test_listing_lenses_loads_no_torch(code):
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; assert 'torch' not in sys.modules"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
