"""The graph of layers: one stage with its entries and exits, ranks, and what is said of odd networks."""

import numpy as np
import pytest
import torch

import neuralmine as nm
from neuralmine.errors import UnknownName, UsageError
from neuralmine.views import Graph
from neuralmine.views.graph import longest_paths

nn = torch.nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.relu, self.second = nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 4)

    def forward(self, x):
        return self.second(self.relu(self.first(x))).add_(x)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.blocks, self.head = nn.Linear(3, 4), nn.Sequential(Block(), Block()), nn.Linear(4, 2)
        self.table, self.idle = nn.Embedding(2, 4), nn.Linear(4, 4)

    def forward(self, x):
        x = self.stem(x) + self.table(torch.tensor([1]))
        self.idle(x)
        return self.head(self.blocks(x))


@pytest.fixture(scope="module")
def net():
    return nm.load(Net(), shape=(3,))


def pairs(finding, key):
    names = [name for name, *_ in finding.provenance["nodes"]]
    return {(names[a], names[b]) for a, b in finding.numbers[key]}


def test_the_whole(net):
    seen = nm.look("layers_graph", net)
    names = [name for name, *_ in seen.provenance["nodes"]]
    ranks = dict(zip(names, seen.numbers["ranks"].tolist(), strict=True))
    assert ranks == {
        "": 0, "table": 0, "stem": 1, "add 1": 2, "idle": 3, "blocks.0.first": 3, "blocks.0.relu": 4,
        "blocks.0.second": 5, "blocks.0.add 1": 6, "blocks.1.first": 7, "blocks.1.relu": 8, "blocks.1.second": 9,
        "blocks.1.add 1": 10, "head": 11, "output": 12,
    }  # fmt: skip
    assert all(a < b for key in ("links", "edges") for a, b in seen.numbers[key])
    assert {("stem", "head"), ("table", "head"), ("blocks.0.second", "head")} < pairs(seen, "edges")
    assert [check.measured for check in seen.checks] == [0, 1, 1]
    assert seen.checks[0].passed
    assert "table" in seen.checks[1].meaning
    assert "idle" in seen.checks[2].meaning
    assert "3 joins, 3 links that skip a rank" in seen.summary
    assert "blocks.0.add 1 ← add 1, blocks.0.second" in seen.text()


def test_one_stage_with_what_feeds_it_and_what_it_feeds(net):
    seen = nm.look("layers_graph", net, within="blocks.1")
    assert pairs(seen, "links") == {
        ("blocks.0.add 1", "blocks.1.first"), ("blocks.1.first", "blocks.1.relu"), ("blocks.1.relu", "blocks.1.second"),
        ("blocks.1.second", "blocks.1.add 1"), ("blocks.0.add 1", "blocks.1.add 1"), ("blocks.1.add 1", "head"),
    }  # fmt: skip
    names = [name for name, *_ in seen.provenance["nodes"]]
    inside = {name for name, there in zip(names, seen.numbers["inside"], strict=True) if there}
    assert inside == {f"blocks.1.{name}" for name in ("first", "relu", "second", "add 1")}
    fire = nm.look("layers_graph", nm.load("squeezenet", trained=False), within="features.3")
    assert ("features.3.cat 1", "features.4.squeeze") in pairs(fire, "links")
    assert ("features.2", "features.3.squeeze") in pairs(fire, "links")
    assert len(fire.views[0].nodes) == 9


def test_a_stage_that_does_not_exist(net):
    with pytest.raises(UnknownName, match=r"Did you mean 'blocks\.[01]'"):
        nm.look("layers_graph", net, within="blocks.7")


def test_ranks_are_longest_paths_by_brute_force():
    generator = np.random.default_rng(0)
    for _ in range(20):
        edges = [(a, b) for a in range(9) for b in range(a + 1, 9) if generator.random() < 0.3]
        names = [str(i) for i in range(9)]
        longest = [0] * 9
        for b in range(9):
            longest[b] = max((longest[a] + 1 for a, c in edges if c == b), default=0)
        order = generator.permutation(len(edges))
        assert longest_paths(names, [(str(edges[i][0]), str(edges[i][1])) for i in order]) == tuple(longest)
    with pytest.raises(UsageError, match="circle"):
        longest_paths("ab", [("a", "b"), ("b", "a")])


def test_boxes_do_not_overlap_and_chains_are_straight():
    from neuralmine.views.graph import _BOX, _placed

    names = list("abcdefgh")
    edges = [*zip("abcd", "bcde", strict=True), ("a", "e"), ("e", "f"), ("e", "g"), ("f", "h"), ("g", "h"), ("b", "h")]
    graph = Graph("t", tuple((n, n, "x") for n in names), tuple(edges))
    at, paths = _placed(names, [_BOX] * 8, edges, graph.ranks())
    x = dict(zip(names, (x for x, _ in at), strict=True))
    assert x["b"] == pytest.approx(x["c"]) == pytest.approx(x["d"])
    assert abs(x["f"] - x["g"]) >= _BOX
    for path, (source, target) in zip(paths, edges, strict=True):
        assert path[0][0] == x[source]
        assert path[-1][0] == x[target]
        for px, py in path[1:-1]:
            assert all(abs(px - bx) > _BOX / 2 for bx, by in at if by == py)
