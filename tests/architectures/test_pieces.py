"""The arithmetic of each piece, worked by hand in numpy, is what torch and its autograd make of the same weights."""

import numpy as np
import pytest
import torch
from torch import nn

import neuralmine as nm
from neuralmine.architectures import NAMES, PIECES, arithmetic, build
from neuralmine.architectures.inception import BRANCHES
from neuralmine.architectures.trained import trained
from neuralmine.errors import NetworkError, UnknownName, UsageError
from neuralmine.networks.torch_module import network_of

BATCHED = ("dense", "normalisation")
# piece, the builder's options, the shape of one input (BATCHED: of a batch), options of the arithmetic
CASES = [
    ("convolution", {"inputs": 2, "outputs": 3}, (2, 6, 7), {}),
    ("convolution", {"inputs": 1, "outputs": 2, "bias": False, "size": 1}, (1, 3, 3), {}),
    ("convolution", {"inputs": 2, "outputs": 3, "stride": 2, "padding": 1}, (2, 6, 7), {"stride": 2, "padding": 1}),
    ("convolution", {"inputs": 4, "outputs": 6, "groups": 2, "stride": 3}, (4, 8, 8), {"groups": 2, "stride": 3}),
    ("convolution", {"inputs": 3, "outputs": 3, "groups": 3, "padding": 2}, (3, 4, 5), {"groups": 3, "padding": 2}),
    ("pooling", {"kind": "max"}, (2, 5, 6), {"kind": "max"}),
    *[
        ("pooling", options, (2, 6, 7), options)
        for kind in ("max", "average")
        for options in ({"kind": kind, "size": 3, "stride": 2, "padding": 1}, {"kind": kind, "size": 2, "stride": 1})
    ],
    ("normalisation", {"kind": "batch", "width": 3}, (5, 3), {"kind": "batch"}),
    ("normalisation", {"kind": "batch", "width": 3, "maps": True}, (4, 3, 2, 5), {"kind": "batch"}),
    ("normalisation", {"kind": "batch", "width": 3}, (5, 3), {"kind": "batch", "training": False}),
    ("normalisation", {"kind": "batch", "width": 3, "maps": True}, (4, 3, 2, 5), {"kind": "batch", "training": False}),
    ("normalisation", {"kind": "layer", "width": 6}, (3, 6), {"kind": "layer"}),
    ("normalisation", {"kind": "layer", "width": 6}, (3, 6), {"kind": "layer", "training": False}),
    ("normalisation", {"kind": "group", "width": 6, "groups": 3}, (4, 6), {"kind": "group", "groups": 3}),
    ("residual", {"inputs": 2, "outputs": 2}, (2, 5, 4), {}),
    ("residual", {"inputs": 2, "outputs": 3, "stride": 2}, (2, 6, 5), {"stride": 2}),
    ("inception", {"inputs": 3, "outputs": 2, "reduced": 2}, (3, 6, 5), {}),
    ("recurrent", {"kind": "elman"}, (6, 2), {"kind": "elman"}),
    ("recurrent", {"kind": "gru", "inputs": 3, "hidden": 4}, (6, 3), {"kind": "gru"}),
    ("recurrent", {"kind": "gru"}, (1, 2), {"kind": "gru"}),
    ("attention", {"width": 5, "head": 3}, (4, 5), {}),
    ("attention", {"width": 5, "head": 3, "causal": True}, (4, 5), {"causal": True}),
    ("attention", {"width": 5, "head": 3, "heads": 2}, (4, 5), {"heads": 2}),
    ("attention", {"width": 5, "head": 2, "heads": 4, "causal": True}, (4, 5), {"heads": 4, "causal": True}),
    *[
        ("dense", {"inputs": 5, "outputs": 3, "activation": kind}, (4, 5), {"activation": kind})
        for kind in ("sigmoid", "tanh", "relu", "linear")
    ],
]


def worked_both_ways(name, built, shape, options, seed=0):
    """By hand; and torch's module, input, output and upstream after its backward pass."""
    generator = torch.Generator().manual_seed(seed)
    module = build({"name": name, **built}).train(options.get("training", True))
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):  # norms too begin at something to be noticed
            if tensor.is_floating_point() and name == "normalisation":
                tensor.copy_(torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype) + 0.5)
    weights = {key: value.numpy().copy() for key, value in module.state_dict().items()}
    x = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    output = module(x) if name in BATCHED else module(x[None])[0]
    upstream = torch.randn(output.shape, generator=generator, dtype=torch.float64)
    output.backward(upstream)
    return arithmetic(name, x.detach().numpy(), weights, upstream.numpy(), **options), module, x, output, upstream


@pytest.mark.parametrize(("name", "built", "shape", "options"), CASES)
@pytest.mark.parametrize("seed", [0, 1])
def test_forward_and_every_slope_equal_torch(name, built, shape, options, seed):
    worked, module, x, output, upstream = worked_both_ways(name, built, shape, options, seed)
    near = {"rtol": 0, "atol": 1e-10}
    np.testing.assert_allclose(worked["output"], output.detach().numpy(), **near)
    np.testing.assert_allclose(worked["d_input"], x.grad.numpy(), **near)
    for key, parameter in module.named_parameters():
        np.testing.assert_allclose(worked[f"d_{key}"], parameter.grad.numpy(), err_msg=key, **near)
    np.testing.assert_array_equal(worked["d_output"], upstream.numpy())


def test_every_piece_is_tested_here_and_can_be_traced():
    assert {case[0] for case in CASES} == set(PIECES)
    assert set(NAMES) == {"mlp", *PIECES}
    for name, built, shape, _ in CASES:
        one = shape[1:] if name in BATCHED else shape
        network = network_of(build({"name": name, **built}).double(), shape=one)
        trace = nm.trace(network, torch.zeros(1, *one, dtype=network_dtype(network)))
        assert len(trace) > 0


def network_dtype(network):
    first = next(network.module.parameters(), None)
    return torch.get_default_dtype() if first is None else first.dtype


def test_the_intermediates_are_those_a_trace_sees():
    options = {"heads": 2, "causal": True}
    worked, module, x, _, _ = worked_both_ways("attention", options, (4, 4), options)
    trace = nm.trace(network_of(module, shape=(4, 4)), x.detach()[None])
    assert trace["attention"].dims == "b h q k"
    np.testing.assert_allclose(worked["attention"], trace["attention"].numpy()[0], atol=1e-12)
    for name in ("query", "key", "value"):
        np.testing.assert_allclose(np.hstack(worked[name]), trace[name].numpy()[0], atol=1e-12)
    worked, module, x, _, _ = worked_both_ways("residual", {}, (2, 4, 4), {})
    trace = nm.trace(network_of(module, shape=(2, 4, 4)), x.detach()[None])
    np.testing.assert_allclose(worked["first.output"], trace["first"].numpy()[0], atol=1e-12)
    np.testing.assert_allclose(worked["hidden"], trace["first_relu"].numpy()[0], atol=1e-12)
    np.testing.assert_allclose(worked["d_input_by_block"] + worked["d_total"], x.grad.numpy(), atol=1e-10)
    worked, module, x, _, _ = worked_both_ways("inception", {}, (2, 4, 4), {})
    trace = nm.trace(network_of(module, shape=(2, 4, 4)), x.detach()[None])
    for name in ("one", "three_reduce", "three", "five", "pool", "pool_project"):
        np.testing.assert_allclose(worked[f"{name}.output"], trace[name].numpy()[0], atol=1e-12)
    np.testing.assert_allclose(sum(worked[f"d_input_by_{b}"] for b in BRANCHES), x.grad.numpy(), atol=1e-10)
    worked, module, x, _, _ = worked_both_ways("recurrent", {"kind": "gru"}, (3, 2), {"kind": "gru"})
    trace = nm.trace(network_of(module, shape=(3, 2)), x.detach()[None])
    np.testing.assert_allclose(worked["states"][2], trace["cell#1"].numpy()[0], atol=1e-12)


def test_windows_are_torch_s_unfolded_patches_and_their_products_add_up():
    worked, _, x, output, _ = worked_both_ways(*CASES[2])
    patches = nn.functional.unfold(x.detach()[None], 3, stride=2, padding=1)[0]  # (c y x) × places
    mine = worked["windows"][0].reshape(-1, patches.shape[0]).T
    np.testing.assert_array_equal(mine, patches.numpy())
    bias = output.detach().numpy() - worked["products"].sum((3, 4, 5))
    np.testing.assert_allclose(bias, np.broadcast_to(bias[:, :1, :1], bias.shape), atol=1e-12)


def test_switches_are_torch_s_indices_also_when_values_are_equal():
    x = torch.randint(3, (2, 6, 7), generator=torch.Generator().manual_seed(0)).double()
    _, indices = nn.functional.max_pool2d(x[None], 3, 2, 1, return_indices=True)
    worked = arithmetic("pooling", x.numpy(), {}, kind="max", size=3, stride=2, padding=1)
    np.testing.assert_array_equal(worked["switches"], indices[0].numpy())


def test_running_statistics_move_as_torch_s_do():
    worked, module, *_ = worked_both_ways("normalisation", {"width": 3, "maps": True}, (4, 3, 2, 5), {})
    np.testing.assert_allclose(worked["running_mean"], module.normalisation.running_mean.numpy(), atol=1e-12)
    np.testing.assert_allclose(worked["running_var"], module.normalisation.running_var.numpy(), atol=1e-12)
    still, *_ = worked_both_ways("normalisation", {"width": 3}, (4, 3), {"training": False})
    assert "running_mean" not in still


def test_slopes_through_mean_and_variance_are_those_of_autograd():
    x = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    mean = x.mean(0).requires_grad_()
    variance = x.var(0, unbiased=False).requires_grad_()
    scale, upstream = torch.tensor([0.5, 1.0, 2.0]).double(), torch.arange(15).reshape(5, 3).double()
    ((x - mean) / (variance + 1e-5).sqrt() * scale).backward(upstream)
    weights = {"normalisation.weight": scale.numpy(), "normalisation.bias": np.zeros(3)}
    worked = arithmetic("normalisation", x.numpy(), weights, upstream.numpy())
    np.testing.assert_allclose(worked["d_mean"][0], mean.grad.numpy(), rtol=1e-10)
    np.testing.assert_allclose(worked["d_variance"][0], variance.grad.numpy(), rtol=1e-10)


@pytest.mark.parametrize(("loss", "activation"), [("squared", "sigmoid"), ("cross_entropy", "linear")])
def test_a_dense_layer_s_loss_is_torch_s_and_its_examples_add_up_to_it(loss, activation):
    module = build({"name": "dense", "inputs": 6, "outputs": 4, "activation": activation})
    x = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    targets = torch.tensor([0, 3, 3, 1, 2])
    output = module(x)
    if loss == "squared":
        measured = ((output - nn.functional.one_hot(targets, 4)) ** 2).sum(1)
    else:
        measured = nn.functional.cross_entropy(output, targets, reduction="none")
    measured.mean().backward()
    weights = {key: value.detach().numpy() for key, value in module.state_dict().items()}
    worked = arithmetic(
        "dense", x.detach().numpy(), weights, activation=activation, loss=loss, targets=targets.tolist()
    )
    np.testing.assert_allclose(worked["example_losses"], measured.detach().numpy(), atol=1e-12)
    np.testing.assert_allclose(worked["contributions"].sum(), worked["loss"][0], atol=1e-15)
    np.testing.assert_allclose(worked["loss"][0], measured.mean().item(), atol=1e-12)
    np.testing.assert_allclose(worked["d_input"], x.grad.numpy(), atol=1e-12)
    np.testing.assert_allclose(worked["d_sum.weight"], module.sum.weight.grad.numpy(), atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_heads_are_those_of_torch_s_own_multi_head_attention(heads, causal):
    size, width, time = 2, 2 * heads, 5
    theirs = nn.MultiheadAttention(width, heads, batch_first=True, dtype=torch.float64)
    generator = torch.Generator().manual_seed(heads)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    x = torch.randn(1, time, width, generator=generator, dtype=torch.float64, requires_grad=True)
    mask = torch.ones(time, time, dtype=torch.bool).triu(1) if causal else None
    output, shares = theirs(x, x, x, attn_mask=mask, average_attn_weights=False)
    upstream = torch.randn(output.shape, generator=generator, dtype=torch.float64)
    output.backward(upstream)
    names = ("query", "key", "value")
    weights = {"projection.weight": theirs.out_proj.weight, "projection.bias": theirs.out_proj.bias}
    weights |= dict(zip([f"{n}.weight" for n in names], theirs.in_proj_weight.chunk(3), strict=True))
    weights |= dict(zip([f"{n}.bias" for n in names], theirs.in_proj_bias.chunk(3), strict=True))
    weights = {name: value.detach().numpy() for name, value in weights.items()}
    worked = arithmetic("attention", x[0].detach().numpy(), weights, upstream[0].numpy(), heads=heads, causal=causal)
    near = {"rtol": 0, "atol": 1e-10}
    np.testing.assert_allclose(worked["output"], output[0].detach().numpy(), **near)
    np.testing.assert_allclose(worked["attention"], shares[0].detach().numpy(), **near)
    np.testing.assert_allclose(worked["d_input"], x.grad[0].numpy(), **near)
    for kind, slope in (("weight", theirs.in_proj_weight.grad), ("bias", theirs.in_proj_bias.grad)):
        np.testing.assert_allclose(np.concatenate([worked[f"d_{n}.{kind}"] for n in names]), slope.numpy(), **near)
        np.testing.assert_allclose(worked[f"d_projection.{kind}"], getattr(theirs.out_proj, kind).grad.numpy(), **near)
    # Each head by itself is torch's plain attention of its own query, key and value.
    own = (torch.tensor(worked[n]) for n in names)
    np.testing.assert_allclose(
        worked["head"], nn.functional.scaled_dot_product_attention(*own, is_causal=causal).numpy(), **near
    )
    assert worked["head"].shape == (heads, time, size)


def test_a_causal_head_never_looks_ahead():
    worked, *_ = worked_both_ways("attention", {"causal": True}, (5, 4), {"causal": True})
    assert (np.triu(worked["attention"], 1) == 0).all()
    np.testing.assert_allclose(worked["attention"].sum(-1), 1)
    assert (np.triu(worked["d_scores"], 1) == 0).all()


def test_a_piece_is_trained_once_from_its_seed_and_its_readout_is_far_better_than_chance():
    description = {"name": "convolution", "inputs": 1, "outputs": 4, "seed": 1}
    found = trained(description)
    assert found is trained(dict(reversed(description.items())))
    assert 0.8 < found.accuracy <= 1  # one in ten by chance
    drawn = build(description).state_dict()["convolution.weight"].numpy()
    assert np.abs(found.weights["convolution.weight"] - drawn).max() > 0.1  # it learned
    images = torch.tensor(nm.datasets.load("digits").images[:, None], dtype=torch.float64)
    for seed in (0, 1):
        learned = trained({**description, "seed": seed})
        maps = nn.functional.conv2d(images, *map(torch.tensor, learned.weights.values()))
        assert [at for at in range(4) if maps[:, at].max() <= 0] == list(learned.dead)


def test_builders_draw_from_their_seed_alone():
    for name in PIECES:
        first = build({"name": name}).state_dict()
        torch.rand(3)
        again = build({"name": name}).state_dict()
        assert all(torch.equal(first[key], again[key]) for key in first)


@pytest.mark.parametrize(
    ("name", "value", "weights", "options"),
    [
        ("convolution", np.zeros((2, 2)), {"convolution.weight": np.zeros((1, 1, 2, 2))}, {}),
        ("convolution", np.zeros((2, 4, 4)), {"convolution.weight": np.zeros((1, 1, 2, 2))}, {}),
        ("convolution", np.zeros((1, 2, 2)), {"convolution.weight": np.zeros((1, 1, 3, 3))}, {}),
        ("pooling", np.zeros((1, 4, 4)), {}, {"kind": "median"}),
        ("pooling", np.zeros((1, 4, 4)), {}, {"padding": 2}),
        ("normalisation", [[1.0]], {"normalisation.weight": [1.0], "normalisation.bias": [0.0]}, {}),
        ("normalisation", np.zeros((2, 3)), {"normalisation.weight": [1.0], "normalisation.bias": [0.0]}, {}),
        ("attention", np.zeros((2, 3)), {f"{n}.weight": np.eye(2) for n in ("query", "key", "value")}, {}),
        ("attention", np.zeros((2, 3)), {f"{n}.weight": np.eye(3) for n in ("query", "key", "value")}, {"heads": 2}),
        ("attention", np.zeros((2, 3)), {f"{n}.weight": np.eye(3) for n in ("query", "key", "value")} | {"projection.weight": np.eye(2)}, {}),
        ("recurrent", np.zeros((2, 3)), {f"cell.{n}": np.eye(2) for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}, {}),
        ("dense", np.zeros((2, 3)), {"sum.weight": np.eye(2), "sum.bias": np.zeros(2)}, {}),
        ("dense", np.zeros((1, 2)), {"sum.weight": np.eye(2), "sum.bias": np.zeros(2)}, {"activation": "step"}),
        ("dense", np.zeros((1, 2)), {"sum.weight": np.eye(2), "sum.bias": np.zeros(2)}, {"loss": "squared", "targets": [2]}),
        ("dense", np.zeros((1, 2)), {"sum.weight": np.eye(2), "sum.bias": np.zeros(2)}, {"loss": "hinge", "targets": [0]}),
        ("normalisation", np.zeros((2, 3)), {"normalisation.weight": np.ones(3), "normalisation.bias": np.zeros(3)}, {"kind": "group", "groups": 2}),
        ("dropout", [], {}, {}),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(name, value, weights, options):
    with pytest.raises(UsageError):
        arithmetic(name, value, weights, **options)


def test_an_upstream_of_another_shape_and_unknown_options_are_said():
    with pytest.raises(UsageError, match="upstream"):
        arithmetic("pooling", np.zeros((1, 4, 4)), {}, np.zeros((1, 4, 4)))
    with pytest.raises(UnknownName, match="elman"):
        build({"name": "recurrent", "kind": "lstm"})
    with pytest.raises(UsageError, match="groups"):
        build({"name": "convolution", "inputs": 3, "groups": 2})
    with pytest.raises(NetworkError, match="does not take"):
        build({"name": "pooling", "colour": "red"})
