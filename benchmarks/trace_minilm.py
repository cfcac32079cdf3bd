"""Tracing every layer of a 128-token sentence through MiniLM, beside the plain forward with hidden states: one JSON line."""

import argparse
import json
import statistics
import time

import torch

import neuralmine as nm
from neuralmine.sentences import WORDS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(2)
    network = nm.load("minilm")
    text = " ".join((WORDS * 3)[:126])
    encoded = network.encode(text)
    assert encoded.shape[1] == 128

    def plain() -> None:
        with torch.no_grad():
            network.module(encoded, output_hidden_states=True)

    def traced() -> None:
        nm.trace(network, encoded)

    ways = {"plain": plain, "ours": traced}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 2):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            if turn >= 2:  # the first two turns warm up
                times[name].append(time.perf_counter() - began)
    ratios = [ours / floor for ours, floor in zip(times["ours"], times["plain"], strict=True)]
    ratio = statistics.median(ratios)
    print(
        json.dumps(
            {
                "work": "trace all layers, MiniLM, 128 tokens",
                "plain_ms": round(1000 * statistics.median(times["plain"]), 2),
                "ours_ms": round(1000 * statistics.median(times["ours"]), 2),
                "ratio": round(ratio, 3),
                "target": 1.2,
                "met": ratio <= 1.2,
            }
        )
    )


if __name__ == "__main__":
    main()
