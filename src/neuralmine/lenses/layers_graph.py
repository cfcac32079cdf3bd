from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..errors import NetworkError, UnknownName
from ..flow import INPUT, flow_of
from ..lens import lens
from ..types import Check, Finding, Network
from ..views import Graph, Table


@lens()
def layers_graph(network: Network, *, within: str = "") -> Finding:
    """Which layer feeds which: the network's branches, skips and joins, measured in one run of an example.

    Layers are the innermost modules; where tensors of several are put together outside of any, there is a join.
    Numbers: "links" (pairs × 2, what feeds and what is fed, as places in the list of nodes; joins included),
    "ranks" (nodes; how many links the longest path has that leads there), "edges" (pairs × 2; as "links", with the
    joins left out). With `within`, "inside" (nodes; 1 for those of that stage).

    Options:
        within: the module to show alone, with what feeds it and what it feeds (such as "features.3"); when empty, all.

    Raises UnknownName for a module without layers.

    >>> import torch, neuralmine as nm
    >>> net = nm.load(torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()))
    >>> nm.look("layers_graph", net).numbers["edges"].tolist()
    [[0, 1], [1, 2], [2, 3]]
    """
    flow = flow_of(network)
    ran = {node: place for place, node in enumerate(flow.nodes)}
    fed = flow.fed()
    inside = {name for name in ran if within and (name.partition("#")[0] == within or name.startswith(f"{within}."))}
    if within and not inside:
        stages = {".".join(name.split(".")[:k]): 0 for name in flow.layers for k in range(1, name.count(".") + 2)}
        raise UnknownName("module with layers", within, stages)
    links = [link for link in flow.links if not within or inside & set(link)]
    edges = [edge for edge in flow.edges if not within or inside & set(edge)]
    shown = {node for link in (*links, *edges) for node in link} | inside if within else set(flow.nodes)
    nodes = [node for node in flow.nodes if node in shown]
    place = {node: i for i, node in enumerate(nodes)}
    about = {node: _about(network, node, flow.output, flow.joins) for node in nodes}
    title = f"what feeds what in {within}" if within else "what feeds what"
    graph = Graph(title, tuple((node, *about[node]) for node in nodes), tuple(links))
    ranks = np.array(graph.ranks(), dtype=np.int64)
    numbers = {"links": _pairs(links, place), "ranks": ranks, "edges": _pairs(edges, place)}
    if within:
        numbers["inside"] = np.array([int(node in inside) for node in nodes], dtype=np.int64)
    rows = tuple(
        (
            node,
            about[node][1] or "a join",
            ", ".join(source or "input" for source in fed[node] if source in place) or None,
        )
        for node in nodes
        if node != INPUT
    )
    backward = sum(ran[source] >= ran[node] for source, node in (*flow.links, *flow.edges))
    fed_by_none = [node for node in flow.layers if not fed[node]]
    feeding = {source for source, _ in flow.links}
    idle = [node for node in flow.layers if node not in feeding]
    skips = sum(int(ranks[place[b]] - ranks[place[a]]) > 1 for a, b in links)
    return Finding(
        numbers,
        (graph, Table(f"{title}, layer by layer", ("layer or join", "what it is", "fed by"), rows)),
        (
            Check("links against the order of execution", float(backward), 0.0, None, not backward,
                  "What is fed must run after what feeds it; any other number is an error in the measuring."),
            Check("layers that nothing of the input reaches", float(len(fed_by_none)), 0.0, None, None,
                  ("Fed by constants, such as the positions of tokens: " + ", ".join(fed_by_none)) if fed_by_none else "All are reached."),
            Check("layers that feed nothing", float(len(idle)), 0.0, None, None,
                  ("Computed, then not used: " + ", ".join(idle)) if idle else "All are used."),
        ),
        f"{within or network.name or 'The network'}: {len(nodes)} layers, joins and ends, {len(links)} links; "
        f"{sum(node in flow.joins for node in nodes)} joins, {skips} links that skip a rank.",
        provenance={"nodes": [[node, *about[node]] for node in nodes]},
    )  # fmt: skip


def _about(network: Network, node: str, output: str, joins: Mapping[str, str]) -> tuple[str, str]:
    """A node's label and detail."""
    if node == INPUT:
        return "input", " × ".join(map(str, network.shape)) or network.domain
    if node == output:
        return "output", f"{len(network.labels)} classes" if network.labels else "of the network"
    if node in joins:
        return joins[node], ""
    try:
        layer = network.layer(node)
    except NetworkError:
        return node, "not traced"
    return node, f"{layer.kind} {' × '.join(map(str, layer.shape[1:]))}".strip()


def _pairs(pairs: list[tuple[str, str]], place: dict[str, int]) -> np.ndarray:
    return np.array([(place[a], place[b]) for a, b in pairs], dtype=np.int64).reshape(-1, 2)
