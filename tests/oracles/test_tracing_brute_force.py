"""Random networks full of in-place operations, against brute force: clone every output the moment it is put out."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from neuralmine.errors import NetworkError
from neuralmine.tracing import describe, trace
from neuralmine.types import Network, Source

WIDTH, BATCH = 8, 80  # a batch this large makes weights small beside values, so that calls are made again
EXAMPLES = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@dataclasses.dataclass(frozen=True)
class Frozen:
    value: torch.Tensor
    more: Any = None


class Puts(nn.Module):
    """Its input plus something, in a structure; or a view of its input; or its input itself; or nothing."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind

    def forward(self, x):
        return {
            "tuple": lambda: (x + 1, None, x * 2),
            "dict": lambda: {"a": x - 1, "b": [x]},
            "frozen": lambda: Frozen(x + 2, (x.T,)),
            "view": lambda: x.view(-1, 2).view(BATCH, WIDTH),
            "itself": lambda: x,
            "in place": lambda: x.mul_(0.5),
            "nothing": lambda: None,
        }[self.kind]()


LEAVES = {
    "linear": lambda: nn.Linear(WIDTH, WIDTH),
    "norm": lambda: nn.LayerNorm(WIDTH),
    "batchnorm": lambda: nn.BatchNorm1d(WIDTH),
    "relu": nn.ReLU,
    "relu_": lambda: nn.ReLU(inplace=True),
    "leaky_": lambda: nn.LeakyReLU(inplace=True),
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
    "dropout": nn.Dropout,
    "unflatten": lambda: nn.Sequential(nn.Unflatten(1, (2, WIDTH // 2)), nn.Flatten()),
    **{kind: lambda kind=kind: Puts(kind) for kind in ("tuple", "dict", "frozen", "view", "itself", "in place")},
    "nothing": lambda: Puts("nothing"),
}
BETWEEN = ("", "", "+= skip", "add_", "slice", "new", "relu_", "skip")


def first_tensor(output: Any) -> Any:
    if isinstance(output, torch.Tensor) or output is None:
        return output
    if isinstance(output, Frozen):
        return output.value
    return first_tensor(next(iter(output.values())) if isinstance(output, dict) else output[0])


class Program(nn.Module):
    """Layers called one after another, some more than once, with functional operations in between."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps
        self.parts = nn.ModuleDict()
        for leaf, which, _ in steps:
            key = f"{leaf}{which}" if not isinstance(leaf, tuple) else f"program{which}"
            if key not in self.parts:
                self.parts[key] = LEAVES[leaf]() if not isinstance(leaf, tuple) else Program(list(leaf))

    def forward(self, x):
        skip = x
        for leaf, which, between in self.steps:
            key = f"{leaf}{which}" if not isinstance(leaf, tuple) else f"program{which}"
            put_out = first_tensor(self.parts[key](x))
            x = x if put_out is None else put_out
            if between == "+= skip":
                x += skip
            elif between == "add_":
                x.add_(0.25)
            elif between == "slice":
                x[:, : WIDTH // 2].mul_(1.5)
            elif between == "new":
                x = x * 0.9
            elif between == "relu_":
                x = torch.relu_(x)
            elif between == "skip":
                skip = x
        return x


step = st.tuples(st.sampled_from(sorted(LEAVES)), st.integers(0, 1), st.sampled_from(BETWEEN))
inner = st.tuples(st.lists(step, min_size=1, max_size=4).map(tuple), st.integers(0, 1), st.sampled_from(BETWEEN))
programs = st.lists(st.one_of(step, step, inner), min_size=1, max_size=7)


def build(steps, seed: int = 0) -> tuple[Program, torch.Tensor]:
    torch.manual_seed(seed)
    net = Program(steps)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.running_mean.normal_()
    return net, torch.randn(BATCH, WIDTH)


def tensors(output: Any) -> list[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        return [output]
    if isinstance(output, Frozen):
        output = (output.value, output.more)
    if isinstance(output, dict):
        output = tuple(output.values())
    return [t for entry in output for t in tensors(entry)] if isinstance(output, (tuple, list)) else []


def brute_force(net: nn.Module, x: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    counts: dict[str, int] = {}

    def hook_of(name):
        def hook(part, args, output):
            for tensor in tensors(output):
                k = counts.get(name, 0)
                counts[name] = k + 1
                found[f"{name}#{k}" if k else name] = tensor.clone()

        return hook

    hooks = [part.register_forward_hook(hook_of(name)) for name, part in net.named_modules() if name]
    was = net.training
    with torch.no_grad():
        output = net.eval()(x.clone())
    net.train(was)
    for hook in hooks:
        hook.remove()
    return found, output


def network_of(net: nn.Module, x: torch.Tensor) -> Network:
    layers, untraced = describe(net, x)
    return Network(
        net, torch.as_tensor, lambda _: [], (), layers, "vector", (WIDTH,), Source("a test"), untraced=untraced
    )


@EXAMPLES
@given(programs)
def test_every_value_is_what_the_layer_put_out(steps):
    net, x = build(steps)
    network = network_of(net, x)
    expected, output = brute_force(net, x)
    for _ in range(2):  # the second trace knows what must be copied
        seen = trace(network, x)
        assert list(seen) == list(expected)
        assert [layer.name for layer in network.layers] == list(expected)
        for name, value in expected.items():
            assert torch.equal(seen[name].value, value), name
        assert torch.equal(seen.output, output)
    # Also after training on.
    with torch.no_grad():
        for tensor in (*net.parameters(), *net.buffers()):
            tensor.data.fill_(3)
    assert all(torch.equal(seen[name].value, value) for name, value in expected.items())


@EXAMPLES
@given(programs, st.data())
def test_few_layers_are_the_same_as_among_all(steps, data):
    net, x = build(steps)
    network = network_of(net, x)
    expected, _ = brute_force(net, x)
    if not expected:
        return
    wanted = data.draw(st.lists(st.sampled_from(list(expected)), min_size=1, max_size=3, unique=True))
    seen = trace(network, x, layers=wanted)
    assert list(seen) == [name for name in expected if name in wanted]
    assert all(torch.equal(seen[name].value, expected[name]) for name in wanted)


@EXAMPLES
@given(programs, st.data())
def test_an_edit_is_the_same_as_a_hook_by_hand(steps, data):
    net, x = build(steps)
    network = network_of(net, x)
    single = [
        name
        for name, part in net.named_modules()
        if name in dict.fromkeys(layer.name for layer in network.layers)
        and f"{name}#1" not in {layer.name for layer in network.layers}
        and not isinstance(part, Puts)
    ]
    if not single:
        return
    name = data.draw(st.sampled_from(single))
    part = dict(net.named_modules())[name]
    by_hand = part.register_forward_hook(lambda _, __, output: output * 0.5 + 1)
    expected, output = brute_force(net, x)
    by_hand.remove()
    seen = trace(network, x, edits={name: lambda t: t * 0.5 + 1})
    assert torch.equal(seen.output, output)
    assert all(torch.equal(seen[other].value, value) for other, value in expected.items())


@EXAMPLES
@given(programs, st.data())
def test_gradients_are_those_of_a_leaf_put_in_its_place(steps, data):
    net, x = build(steps)
    network = network_of(net, x)
    try:
        with torch.enable_grad():
            net.eval()(x.clone().requires_grad_() * 1).square().sum().backward()
    except RuntimeError:
        return  # torch itself cannot differentiate this network, for something it needs is overwritten
    finally:
        net.train()
    expected, _ = brute_force(net, x)
    seen = trace(network, x.requires_grad_(), grad=True)
    single = [name for name in expected if "#" not in name and f"{name}#1" not in expected]
    for name in expected:
        try:
            assert torch.equal(seen[name].value.detach(), expected[name]), name
        except NetworkError as error:
            assert "cannot be had with `grad=True`" in str(error)  # noqa: PT017
    if not single:
        return
    name = data.draw(st.sampled_from(single))
    part = dict(net.named_modules())[name]
    if isinstance(part, (Puts, Program)):
        return
    leaf: list[torch.Tensor] = []

    def replace(part, args, output):
        leaf.append(output.detach().clone().requires_grad_())
        return leaf[0] * 1

    by_hand = part.register_forward_hook(replace)
    output = net.eval()(x.detach().clone())
    by_hand.remove()
    if not torch.equal(output, seen.output):
        return  # the layer's input is its output too, and putting another in its place changes what follows
    try:
        (wanted,) = torch.autograd.grad(output.square().sum(), leaf[0], allow_unused=True)
        (got,) = torch.autograd.grad(seen.output.square().sum(), seen[name].value, allow_unused=True)
    except NetworkError as error:
        assert "cannot be had" in str(error)  # noqa: PT017
        return
    if wanted is not None and got is not None:
        torch.testing.assert_close(got, wanted)
    else:
        assert (wanted is None or not wanted.any()) == (got is None or not got.any())


def test_copies_that_take_away_what_others_would_be_made_from():
    body = (("dropout", 0, "+= skip"), ("batchnorm", 0, "+= skip"), ("batchnorm", 0, ""))
    net, x = build([(body, 0, ""), ((("batchnorm", 0, ""),), 0, "")])
    seen, (expected, _) = trace(network_of(net, x), x), brute_force(net, x)
    assert all(torch.equal(seen[name].value, value) for name, value in expected.items())


@pytest.mark.parametrize("kind", ["relu_", "in place"])
def test_long_chains_in_place(kind):
    net, x = build([("norm", 0, ""), *((kind, i % 2, "add_") for i in range(70))])
    seen, (expected, _) = trace(network_of(net, x), x), brute_force(net, x)
    assert all(torch.equal(seen[name].value, value) for name, value in expected.items())
