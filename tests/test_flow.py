"""Which layer feeds which, against edges written by hand."""

import itertools

import numpy as np
import pytest
import torch

import neuralmine as nm
from neuralmine.flow import edges_of, flow_of

nn = torch.nn


def edges(text):
    """Each word pair "a>b" an edge; IN and OUT for the network's own ends, a>b>c for two."""
    found = set()
    for chain in text.split():
        names = [{"IN": "", "OUT": "output"}.get(name, name) for name in chain.split(">")]
        found |= set(itertools.pairwise(names))
    return found


def written(forward, **parts):
    """A module of these parts with that forward."""

    class Written(nn.Module):
        def __init__(self):
            super().__init__()
            for name, part in parts.items():
                setattr(self, name, part)

    Written.forward = forward
    return Written()


def conv(given=2, out=2):
    return nn.Conv2d(given, out, 3, padding=1)


def seen(module, shape=(2, 8, 8)):
    flow = flow_of(nm.load(module, shape=shape))
    holds_what_it_promises(flow)
    return flow


def holds_what_it_promises(flow):
    place = {node: i for i, node in enumerate(flow.nodes)}
    assert len(place) == len(flow.nodes)
    for pairs in (flow.edges, flow.links):
        assert len(set(pairs)) == len(pairs)
        assert all(place[a] < place[b] for a, b in pairs)
    assert {node for edge in flow.edges for node in edge} <= {"", *flow.layers, flow.output}
    assert all(len(sources) > 1 for node, sources in flow.fed().items() if node in flow.joins)


def test_a_chain():
    module = nn.Sequential(conv(), nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(128, 3))
    flow = seen(module)
    assert set(flow.edges) == edges("IN>0>1>2>3>4>OUT")
    assert not flow.joins
    assert edges_of(nm.load(module, shape=(2, 8, 8))) == flow.edges


@pytest.mark.parametrize("inplace", [False, True])
def test_a_fire_module(inplace):
    def forward(self, x):
        x = self.a(self.squeeze(x))
        return self.last(torch.cat([self.b(self.one(x)), self.c(self.three(x))], 1))

    flow = seen(written(
        forward, squeeze=nn.Conv2d(2, 2, 1), a=nn.ReLU(inplace), one=nn.Conv2d(2, 4, 1), b=nn.ReLU(inplace),
        three=conv(2, 4), c=nn.ReLU(inplace), last=nn.AdaptiveAvgPool2d(1),
    ))  # fmt: skip
    assert set(flow.edges) == edges("IN>squeeze>a>one>b>last a>three>c>last>OUT")
    assert flow.joins == {"cat 1": "cat"}
    assert flow.fed()["cat 1"] == ("b", "c")
    assert flow.fed()["last"] == ("cat 1",)


def residual(add):
    def forward(self, x):
        x = self.stem(x)
        y = self.bn(self.conv2(self.relu(self.conv1(x))))
        return self.relu(add(y, x))

    return written(forward, stem=conv(), conv1=conv(), conv2=conv(), bn=nn.BatchNorm2d(2), relu=nn.ReLU(inplace=True))


@pytest.mark.parametrize("add", [torch.Tensor.add_, torch.add, lambda y, x: torch.add(y, x, out=torch.empty_like(y))])
def test_a_residual_block_with_a_module_called_twice(add):
    flow = seen(residual(add))
    assert set(flow.edges) == edges("IN>stem>conv1>relu>conv2>bn>relu#1>OUT stem>relu#1")
    assert flow.joins == {"add 1": "add"}
    assert set(flow.fed()["add 1"]) == {"stem", "bn"}


def test_an_in_place_relu_changes_what_the_skip_holds():
    def forward(self, x):
        x = self.a(x)
        y = self.b(self.relu(x))  # the skip holds what the ReLU made of it
        return x + y

    both = {"a": conv(), "b": conv()}
    assert set(seen(written(forward, relu=nn.ReLU(True), **both)).edges) == edges("IN>a>relu>b>OUT relu>OUT")
    assert set(seen(written(forward, relu=nn.ReLU(), **both)).edges) == edges("IN>a>relu>b>OUT a>OUT")


def test_a_module_that_passes_its_input_on_is_passed_by():
    def forward(self, x):
        y = self.a(x)
        return self.b(self.drop(y)) + y + self.none(x)

    module = written(forward, a=conv(), b=conv(), drop=nn.Dropout(), none=nn.Identity())
    assert set(seen(module).edges) == edges("IN>a>drop>b>OUT a>OUT IN>none>OUT")


def test_parts_of_a_tensor_written_one_by_one():
    def forward(self, x):
        y = torch.zeros_like(self.unused(x))
        y[:, :1] = self.a(x)[:, :1]
        y[:, 1:] = self.b(x)[:, 1:]
        first, second = y.chunk(2, 1)
        self.relu(first)
        return self.c(second), self.d(y)

    parts = {name: conv() for name in ("unused", "a", "b", "d")}
    flow = seen(written(lambda self, x: forward(self, x)[1], relu=nn.ReLU(True), c=conv(1), **parts))
    found = {edge for edge in flow.edges if edge[1] == "d"}
    assert found == edges("a>d b>d relu>d")
    assert ("", "unused") in flow.edges
    assert not [edge for edge in flow.edges if edge[0] in ("unused", "c")]


def test_a_shared_module_and_a_layer_named_output():
    inner = nn.Linear(4, 4)
    module = written(
        lambda self, x: self.output(self.second(self.first(x)) * self.gain), first=inner, second=inner,
        gain=nn.Parameter(torch.ones(4)), output=nn.Linear(4, 2),
    )  # fmt: skip
    flow = seen(module, (4,))
    assert flow.edges == (("", "first"), ("first", "first#1"), ("first#1", "output"), ("output", flow.output))
    assert flow.output == "output of the network"


def test_several_outputs_and_a_module_alone():
    def forward(self, x):
        y, (h, _) = self.lstm(x)
        return self.a(y[:, -1]) + self.b(h[-1])

    flow = seen(written(forward, lstm=nn.LSTM(3, 4, batch_first=True), a=nn.Linear(4, 2), b=nn.Linear(4, 2)), (5, 3))
    assert set(flow.edges) == edges("IN>lstm>a>OUT IN>lstm#1>b>OUT IN>lstm#2")
    assert seen(nn.Linear(3, 2), (3,)).edges == (("", "output"),)


def test_the_modules_are_left_as_found():
    module = residual(torch.Tensor.add_).train()
    network = nm.load(module, shape=(2, 8, 8))
    module.train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.get_rng_state()
    first = flow_of(network)
    assert first.links == flow_of(network, np.ones((2, 8, 8))).links
    assert all(part.training for part in module.modules())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_squeezenet_whole():
    network = nm.load("squeezenet", trained=False)
    flow = flow_of(network)
    holds_what_it_promises(flow)
    wanted = "IN>features.0>features.1>features.2"
    last = ["features.2"]
    for k in (3, 4, 5, 6, 7, 8, 9, 10, 11, 12):
        here = f"features.{k}"
        if k in (5, 8):
            wanted += "".join(f" {one}>{here}" for one in last)
            last = [here]
            continue
        wanted += "".join(f" {one}>{here}.squeeze>{here}.squeeze_activation" for one in last)
        last = [f"{here}.expand{n}x{n}_activation" for n in (1, 3)]
        wanted += "".join(f" {here}.squeeze_activation>{here}.expand{n}x{n}>{one}" for n, one in zip((1, 3), last, strict=True))  # fmt: skip
    wanted += "".join(f" {one}>classifier.0" for one in last)
    wanted += " classifier.0>classifier.1>classifier.2>classifier.3>classifier.4>OUT"
    assert set(flow.edges) == edges(wanted)
    assert set(flow.joins.values()) == {"cat"}
    assert list(flow.joins) == [f"features.{k}.cat 1" for k in (3, 4, 6, 7, 9, 10, 11, 12)]
    known = [layer.name for layer in network.layers]
    assert list(flow.layers) == [name for name in known if name in flow.layers]


def test_a_tiny_resnet_of_transformers():
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=2
    )
    torch.manual_seed(0)
    flow = seen(transformers.ResNetForImageClassification(config), (3, 32, 32))
    short = [
        ("resnet.embedder.embedder.", "e."),
        ("resnet.embedder.", "e."),
        ("resnet.encoder.stages.0.layers.0.", "0."),
        ("resnet.encoder.stages.1.layers.0.", "1."),
    ]

    def named(name):
        for long, brief in short:
            name = name.replace(long, brief)
        return name.replace("convolution", "conv").replace("normalization", "norm").replace("activation", "act")

    assert {(named(a), named(b)) for a, b in flow.edges} == edges(
        "IN>e.conv>e.norm>e.act>e.pooler"
        " e.pooler>0.layer.0.conv>0.layer.0.norm>0.layer.0.act>0.layer.1.conv>0.layer.1.norm>0.layer.1.act>0.act"
        " e.pooler>0.shortcut>0.act"
        " 0.act>1.layer.0.conv>1.layer.0.norm>1.layer.0.act>1.layer.1.conv>1.layer.1.norm>1.layer.1.act>1.act"
        " 0.act>1.shortcut.conv>1.shortcut.norm>1.act"
        " 1.act>resnet.pooler>classifier.0>classifier.1>OUT"
    )
    assert set(flow.joins.values()) == {"add"}


def test_a_tiny_vit_and_a_tiny_bert(word_tokenizer):
    transformers = pytest.importorskip("transformers")
    from neuralmine.networks.text import text_network

    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    vit = transformers.ViTModel(transformers.ViTConfig(**size, image_size=16, patch_size=8), add_pooling_layer=False)
    module = written(lambda self, x: self.vit(x).last_hidden_state, vit=vit)
    flow = seen(module, (3, 16, 16))
    first, second = (f"vit.layers.0.add {k}" for k in (1, 2))
    assert flow.fed()[first] == ("vit.embeddings.dropout", "vit.layers.0.dropout")
    assert flow.fed()[second] == (first, "vit.layers.0.dropout#1")
    # The stream runs past the layer: its end is fed by all that was added.
    assert len([edge for edge in flow.edges if edge[1] == flow.fed()["output"][0]]) == 3

    bert = transformers.BertModel(transformers.BertConfig(**size, vocab_size=15), add_pooling_layer=False)
    flow = flow_of(text_network(bert, word_tokenizer))
    holds_what_it_promises(flow)
    first, attention = "encoder.layer.0", "encoder.layer.0.attention"
    names = {
        "word": "embeddings.word_embeddings",
        "position": "embeddings.position_embeddings",
        "type": "embeddings.token_type_embeddings",
        "start": "embeddings.LayerNorm",
        "dropped": "embeddings.dropout",
        **{name: f"{attention}.self.{name}" for name in ("query", "key", "value")},
        "dense": f"{attention}.output.dense",
        "drop": f"{attention}.output.dropout",
        "middle": f"{attention}.output.LayerNorm",
        "wide": f"{first}.intermediate.dense",
        "gelu": f"{first}.intermediate.intermediate_act_fn",
        "narrow": f"{first}.output.dense",
        "drop2": f"{first}.output.dropout",
        "end": f"{first}.output.LayerNorm",
    }
    wanted = edges(
        "IN>word>start position>start type>start>dropped>query>dense>drop>middle>wide>gelu>narrow>drop2>end>OUT"
        " dropped>key>dense dropped>value>dense dropped>middle middle>end"
    )
    assert set(flow.edges) == {(names.get(a, a), names.get(b, b)) for a, b in wanted}


def test_a_compiled_part_is_passed_through():
    script = torch.jit.trace(nn.Conv2d(2, 2, 1), torch.zeros(1, 2, 8, 8))
    module = written(lambda self, x: self.b(self.script(self.a(x))), a=conv(), b=conv(), script=script)
    assert set(seen(module).edges) == edges("IN>a>b>OUT")
