"""Tracing: values are what each layer put out, and the network is left exactly as it was found."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from neuralmine.errors import NetworkError, UnknownName, UsageError
from neuralmine.tracing import describe, tensors_of, trace
from neuralmine.types import Network, Source


def network_of(module: nn.Module, example: torch.Tensor) -> Network:
    layers, untraced = describe(module, example)
    return Network(
        module, torch.as_tensor, lambda _: [], (), layers, "vector", tuple(example.shape[1:]), Source("a test"),
        untraced=untraced,
    )  # fmt: skip


def run(module: nn.Module, x: torch.Tensor, **options):
    return trace(network_of(module, x), x, **options)


class Calls(nn.Module):
    """Passes its input on, and counts."""

    count = 0

    def forward(self, x):
        self.count += 1
        return x * 1


class Residual(nn.Module):
    def __init__(self, body: nn.Module):
        super().__init__()
        self.body, self.relu = body, nn.ReLU(inplace=True)

    def forward(self, x):
        out = self.body(x)
        out += x
        return self.relu(out)


def conv_net() -> nn.Module:
    def block():
        return Residual(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)))

    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), block(), block(), nn.Flatten())
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
    return net


def image() -> torch.Tensor:
    return torch.randn(2, 3, 9, 9)


# ── Values ──


def test_values_survive_operations_in_place():
    net, x = conv_net(), image()
    seen = run(net, x)
    net.eval()
    with torch.no_grad():
        first = net[0](x)
        assert torch.equal(seen["0"].value, first)
        assert torch.equal(seen["1"].value, net[1](first))
        assert seen["1"].value.min() < 0 <= seen["2"].value.min()
        assert torch.equal(seen["3.body"].value, net[3].body(net[1](first).relu()))
        assert torch.equal(seen.output, net(x))


def test_one_run_is_enough_for_torch_layers_and_later_traces():
    class Own(nn.Module):
        def forward(self, x):
            return x * 2

    calls = Calls()
    run_twice = nn.Sequential(calls, Own(), nn.ReLU(inplace=True))
    net = network_of(run_twice, torch.randn(1, 8))
    calls.count = 0
    trace(net, torch.randn(1, 8))
    assert calls.count == 2  # the first trace learns that "1" must be copied
    trace(net, torch.randn(1, 8))
    assert calls.count == 3
    once = nn.Sequential(calls, nn.LayerNorm(32, elementwise_affine=False), nn.ReLU(inplace=True))
    net = network_of(once, torch.randn(1, 32))
    calls.count = 0
    assert trace(net, torch.randn(1, 32))["1"].value.min() < 0
    assert calls.count == 1


def test_what_stayed_in_one_trace_may_be_overwritten_in_the_next():
    class Fork(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.relu = nn.LayerNorm(8), nn.ReLU(inplace=True)

        def forward(self, x):
            out = self.norm(x)
            return self.relu(out) if x.sum() > 0 else out * 2

    net, x = Fork(), torch.rand(40, 8)
    network = network_of(net, -x)
    trace(network, -x)
    assert "never called" in network.untraced["relu"]
    for _ in range(2):
        seen = trace(network, x)
        assert torch.equal(seen["norm"].value, net.norm(x))
        assert torch.equal(seen["relu"].value, net.norm(x).relu())


def test_asking_twice_gives_the_same_tensor_and_holds_no_memory():
    seen = run(conv_net(), image())
    value = seen["1"].value
    assert seen["1"].value is value
    value += 1  # a reader's own change never reaches a later reader
    assert not torch.equal(seen["1"].value, value)


def test_a_trace_survives_training_on():
    net, x = conv_net(), image()
    seen, again = run(net, x), run(net, x)
    expected = {name: activation.value.clone() for name, activation in again.items()}
    with torch.no_grad():
        for tensor in (*net.parameters(), *net.buffers()):
            tensor.data.zero_()
    assert all(torch.equal(seen[name].value, value) for name, value in expected.items())


def test_weights_put_out_by_a_layer_are_kept_as_they_were():
    class Position(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.randn(9, 4))

        def forward(self, x):
            return self.table[: x.shape[1]]

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.position = Position()

        def forward(self, x):
            return x + self.position(x)

    net, x = Net(), torch.randn(2, 3, 4)
    seen, expected = run(net, x), net.position.table[:3].detach().clone()
    with torch.no_grad():
        net.position.table.zero_()
    assert torch.equal(seen["position"].value, expected)
    assert seen["position"].dims == "n d"  # three positions, two inputs


def test_a_traced_value_changed_by_the_reader_is_an_error():
    seen = run(nn.Sequential(nn.Linear(3, 3), nn.Sigmoid()), torch.randn(1, 3))
    seen["1"].value.zero_()
    with pytest.raises(NetworkError, match="changed in place after the trace"):
        _ = seen["1"].value
    assert seen["0"].value is not None


def test_the_input_is_the_callers_own():
    x = torch.randn(2, 4)
    kept = x.clone()
    seen = run(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 2)), x)
    assert torch.equal(x, kept)
    assert torch.equal(seen["0"].value, x.relu())


def test_random_layers_tell_the_run_that_was_shown():
    class Noise(nn.Module):
        def forward(self, x):
            return x + torch.randn_like(x)

    seen = run(nn.Sequential(Noise(), nn.ReLU(inplace=True), nn.Linear(8, 2)), torch.randn(3, 8))
    assert torch.equal(seen["0"].value.relu(), seen["1"].value)


def test_attention_weights_are_found_by_what_they_are():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            out, weights = self.attention(x, x, x, average_attn_weights=False)
            out += x
            return out, weights

    net = Net()
    x = torch.randn(2, 5, 8)
    seen = run(net, x)
    assert seen["attention"].dims == "b t d"
    assert seen["attention#1"].dims == "b h q k"
    # Without hooks torch takes another path through its attention, equal but for rounding.
    torch.testing.assert_close(seen["attention"].value, net.eval().attention(x, x, x)[0].detach())
    assert "never called" in seen.untraced["attention.out_proj"]
    with pytest.raises(NetworkError, match="never called"):
        _ = seen["attention.out_proj"]


def test_dims_hint_and_layers():
    layers, untraced = describe(nn.Sequential(nn.Linear(4, 3), nn.Identity()), torch.zeros(2, 4), {"1": "b unit"})
    assert [(layer.name, layer.dims, layer.shape, layer.parameters) for layer in layers] == [
        ("0", "b d", (2, 3), 15),
        ("1", "b unit", (2, 3), 0),
    ]
    assert untraced == {}


def test_what_cannot_be_traced_is_named():
    class Nothing(nn.Module):
        def forward(self, x):
            return None

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4)
            self.same = self.a
            self.nothing, self.idle = Nothing(), nn.Linear(2, 2)
            self.script = torch.jit.script(nn.Sequential(nn.Linear(4, 4)))

        def forward(self, x):
            self.nothing(x)
            return self.script(self.same(self.a(x)))

    with pytest.warns(DeprecationWarning, match="script"):
        net = Net()
    seen = run(net, torch.randn(1, 4))
    assert list(seen) == ["a", "a#1"]
    assert set(seen.untraced) == {"same", "nothing", "idle", "script", "script.0"}
    assert "'a'" in seen.untraced["same"]
    assert "None" in seen.untraced["nothing"]
    assert "TorchScript" in seen.untraced["script.0"]


def test_compiled_modules_are_traced_as_python():
    inner = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True))
    compiled = torch.compile(inner, backend="eager")
    x = torch.randn(2, 4)
    compiled(x)
    assert torch.equal(run(compiled, x)["_orig_mod.0"].value, inner[0](x))


# ── Layers ──


def test_the_run_stops_at_the_last_layer_asked_for():
    last = Calls()
    net = network_of(nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 4), last), torch.zeros(1, 4))
    last.count = 0
    seen = trace(net, torch.randn(1, 4), layers=["2", "0"])
    assert list(seen) == ["0", "2"]
    assert seen.output is None
    assert last.count == 0
    assert list(trace(net, torch.randn(1, 4), layers="1")) == ["1"]


def test_a_module_that_swallows_everything_does_not_go_on():
    class Swallows(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(2, 2), Calls()

        def forward(self, x):
            try:
                return self.a(x)
            except BaseException:
                return self.b(x)

    net = Swallows()
    seen = run(net, torch.randn(1, 2), layers=["a"])
    assert list(seen) == ["a"]
    assert seen.output is None


def test_asking_for_what_is_not_there():
    net = network_of(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), torch.zeros(1, 4))
    x = torch.randn(1, 4)
    with pytest.raises(UnknownName, match="layer 'linear'"):
        trace(net, x, layers=["linear"])
    with pytest.raises(NetworkError, match="'0#1' was never reached with this input: '0' put out 1 tensor"):
        trace(net, x, layers=["0#1"])
    with pytest.raises(NetworkError, match="never reached"):
        trace(net, x, edits={"1#3": torch.zeros_like})
    with pytest.raises(UsageError, match="empty"):
        trace(net, x, layers=[])


def test_an_early_layer_overwritten_on_the_way_to_a_later_one():
    net, x = conv_net(), image()
    everything, few = run(net, x), run(net, x, layers=["1", "3.body.1", "4.body"])
    assert all(torch.equal(few[name].value, everything[name].value) for name in few)


# ── Edits ──


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    left: torch.Tensor
    right: torch.Tensor


class Puts(nn.Module):
    """Puts out its input in some structure."""

    def __init__(self, wrap):
        super().__init__()
        self.wrap = wrap

    def forward(self, x):
        return self.wrap(x + 1, x + 2)


@pytest.mark.parametrize(
    "wrap",
    [lambda a, b: (a, None, b), lambda a, b: [a, [b]], lambda a, b: {"x": a, "y": {"z": b}}, Pair,
     lambda a, b: torch.return_types.max((a, b))],
)  # fmt: skip
def test_edits_reach_into_structures(wrap):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.puts, self.end = Puts(wrap), nn.Identity()

        def forward(self, x):
            self.got = self.puts(x)
            first, second = tensors_of(self.got)
            return self.end(first * second)

    net, x = Net(), torch.randn(2, 3)
    seen = run(net, x, edits={"puts#1": lambda t: t * 0 + 5})
    assert torch.equal(seen["puts#1"].value, torch.full_like(x, 5))
    assert torch.equal(seen["puts"].value, x + 1)
    assert torch.equal(seen.output, (x + 1) * 5)
    assert type(net.got) is type(wrap(x, x))


def test_edits_equal_a_run_by_hand():
    net, x = conv_net(), image()
    patch = torch.randn(2, 4, 7, 7)
    seen = run(net, x, edits={"1": lambda _: patch, "3": lambda t: t.mul_(2)})
    net.eval()
    with torch.no_grad():
        third = net[3](patch.relu()) * 2
        assert torch.equal(seen["1"].value, patch)
        assert torch.equal(seen["3"].value, third)
        assert torch.equal(seen["3.relu"].value, third / 2)
        assert torch.equal(seen.output, net[5](net[4](third)))


def test_a_patch_from_another_trace_stays_what_it_was():
    net, x, y = conv_net(), image(), image()
    clean = run(net, x)
    kept = clean["0"].value.clone()
    second = nn.Sequential(net[0], nn.ReLU(inplace=True))
    run(second, y, edits={"0": lambda _: clean["0"].value})
    assert torch.equal(clean["0"].value, kept)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t[:1], r"edit of '0' gave \(1, 4\) float32; \(2, 4\) float32 is needed"),
        (lambda t: t.double(), r"gave \(2, 4\) float64"),
        (lambda _: None, "gave a NoneType"),
        (lambda _: 1 / 0, "failed: division by zero"),
    ],
)
def test_an_edit_that_does_not_fit_is_refused(edit, message):
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    with pytest.raises(UsageError, match=message):
        run(net, torch.randn(2, 4), edits={"0": edit})
    assert not net[0]._forward_hooks


def test_an_edit_may_trace_the_same_network():
    net = network_of(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), torch.zeros(1, 4))
    x, y = torch.randn(1, 4), torch.randn(1, 4)
    seen = trace(net, x, edits={"0": lambda _: trace(net, y)["0"].value})
    assert torch.equal(seen["1"].value, trace(net, y)["1"].value)
    assert list(seen) == ["0", "1"]


# ── Gradients ──


def test_gradients_pass_through_layers_that_are_overwritten():
    net, x = conv_net(), image().requires_grad_()
    seen = run(net, x, grad=True)
    for name in ("0", "1", "2", "3.body.1", "3.body", "3"):
        (got,) = torch.autograd.grad(seen.output.square().sum(), seen[name].value, retain_graph=True)
        assert got.shape == seen[name].value.shape
        assert got.abs().sum() > 0
    (got,) = torch.autograd.grad(seen.output.square().sum(), x, retain_graph=True)
    (wanted,) = torch.autograd.grad(net.eval()(x).square().sum(), x)
    assert torch.equal(got, wanted)
    # Against one by hand, through a layer whose output is overwritten at once.
    first = net[0](x).detach()
    h = net[1](first).detach().requires_grad_()
    out = net[5](net[4](net[3](h.relu())))
    (wanted,) = torch.autograd.grad(out.square().sum(), h)
    (got,) = torch.autograd.grad(seen.output.square().sum(), seen["1"].value)
    torch.testing.assert_close(got, wanted)


def test_no_gradient_is_said_rather_than_guessed():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.relu = nn.Linear(4, 4), nn.ReLU(inplace=True)

        def forward(self, x):
            h = self.relu(self.a(x) * 1)
            h += 1  # h is also what the ReLU was given
            return h

    net = Net()
    seen = run(net, torch.randn(1, 4), grad=True)
    with pytest.raises(NetworkError, match="cannot be had with `grad=True`"):
        _ = seen["relu"].value
    assert run(net, torch.randn(1, 4))["relu"].value.min() >= 0


def test_without_grad_there_is_no_graph():
    seen = run(nn.Sequential(nn.Linear(4, 4)), torch.randn(1, 4).requires_grad_())
    assert not seen["0"].value.requires_grad
    assert not seen.output.requires_grad


# ── Failure ──


def test_a_failure_names_the_innermost_layer_and_its_input():
    net = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), nn.Linear(5, 2)))
    described = Network(net, torch.as_tensor, lambda _: [], (), (), "vector", (4,), Source(""))
    with pytest.raises(NetworkError, match=r"layer '1.1' \(Linear\) on a tensor of shape \(3, 4\)") as caught:
        trace(described, torch.randn(3, 4))
    assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(NetworkError, match=r"layer '0'.*Give a batch of inputs of shape \(4,\)"):
        trace(described, torch.randn(3, 7))


def test_lazy_modules_are_refused():
    with pytest.raises(NetworkError, match="lazy"):
        describe(nn.Sequential(nn.LazyLinear(3)), torch.zeros(1, 4))


def test_a_network_that_writes_to_its_weights_is_refused():
    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, x):
            with torch.no_grad():
                self.weight.mul_(2)
            return x * self.weight

    with pytest.raises(NetworkError, match="changed its own weights"):
        describe(nn.Sequential(Writes()), torch.zeros(1, 3))


# ── The network is left as it was found ──


class Counts(nn.Module):
    """Counts its calls in buffers, one changed in place and one replaced, and draws random numbers."""

    def __init__(self, fails: bool):
        super().__init__()
        self.fails = fails
        self.register_buffer("one", torch.zeros(1))
        self.register_buffer("two", torch.zeros(1))

    def forward(self, x):
        self.one += 1
        self.two = self.two + 1
        np.random.rand()
        random.random()
        x = x + torch.rand(1)
        if self.fails:
            raise ValueError("broken on purpose")
        return x


def state_of(net: nn.Module):
    return (
        [(len(p._forward_hooks), len(p._forward_pre_hooks), p.training) for p in net.modules()],
        [(id(t), t.tolist(), t.requires_grad, t.grad is None) for t in net.parameters()],
        [(id(t), t.tolist()) for t in net.buffers()],
        torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate(),
    )  # fmt: skip


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("options", [{}, {"layers": ["4"]}, {"edits": {"1": torch.zeros_like}}])
def test_the_network_is_left_as_it_was_found(fails, grad, options):
    net = nn.Sequential(
        nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(inplace=True), nn.Dropout(), nn.Embedding(9, 4, max_norm=0.1)
    )
    net[4].forward = lambda x: nn.Embedding.forward(net[4], x.abs().long() % 9)
    net.append(Counts(fails)).append(nn.ReLU(inplace=True))
    net[1].eval()
    net[0].weight.requires_grad_(False)
    net[2].register_forward_hook(lambda *_: None)
    described = Network(net, torch.as_tensor, lambda _: [], (), (), "vector", (4,), Source(""))
    before = state_of(net)
    if fails and "layers" not in options:
        with pytest.raises(NetworkError, match="broken on purpose"):
            trace(described, torch.randn(2, 4, generator=torch.Generator().manual_seed(0)), grad=grad, **options)
    else:
        trace(described, torch.randn(2, 4, generator=torch.Generator().manual_seed(0)), grad=grad, **options)
    assert state_of(net) == before


def test_under_inference_mode_too():
    net = conv_net()
    with torch.inference_mode():
        x = image()
        seen = run(net, x)
        value = seen["1"].value
    assert torch.equal(value, net.eval()[1](net[0](x.clone())))


def test_a_forward_in_inference_mode_is_copied():
    class Inference(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.relu = nn.Linear(4, 4), nn.ReLU(inplace=True)

        @torch.inference_mode()
        def forward(self, x):
            return self.relu(self.a(x))

    net, x = Inference(), torch.randn(8, 4)
    assert torch.equal(run(nn.Sequential(net), x)["0.a"].value, net.a(x))


def test_two_threads_do_not_see_each_other():
    net = network_of(nn.Sequential(nn.Linear(64, 64), nn.Sigmoid(), nn.Linear(64, 3)), torch.zeros(1, 64))
    inputs = [torch.randn(1 + i, 64) for i in range(8)]
    results: dict[int, tuple] = {}

    def work(i):
        results[i] = tuple(trace(net, inputs[i])["0"].value.shape)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert results == {i: (1 + i, 64) for i in range(8)}


def test_importing_loads_no_torch():
    code = "import sys, neuralmine.tracing; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("script", ["trace_resnet50", "trace_gpt", "trace_early"])
def test_the_benchmarks_run(script):
    path = Path(__file__).parents[1] / "benchmarks" / f"{script}.py"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(path), "--quick", "--only", "ours"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "ours" in json.loads(done.stdout)["peak_mb"]


def test_with_output_a_trace_of_few_layers_goes_on_to_the_end():
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    inputs = torch.randn(2, 4)
    network = network_of(module, inputs)
    seen = trace(network, inputs, layers=["0"], output=True)
    assert list(seen) == ["0"]
    assert torch.equal(seen.output, module(inputs))
    assert torch.equal(trace(network, inputs, layers=[], output=True).output, module(inputs))
    assert trace(network, inputs, layers=["0"]).output is None
