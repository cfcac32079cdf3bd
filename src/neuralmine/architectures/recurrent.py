"""A recurrent cell stepped over time: Elman's (1990), and the gated recurrent unit (Cho et al. 2014)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import UnknownName, UsageError
from .convolution import drawn, of_rank, slopes
from .terms import Formula, Numbers, Rule, terms_of

KINDS = ("elman", "gru")


class Recurrent(nn.Module):
    """The same `cell` at every moment: it is given the input and its own last state, which begins at 0."""

    def __init__(self, cell: nn.RNNCell | nn.GRUCell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = x.new_zeros(len(x), self.cell.hidden_size)
        states = []
        for moment in x.unbind(1):
            state = self.cell(moment, state)
            states.append(state)
        return torch.stack(states, 1)


def recurrent(kind: str = "elman", inputs: int = 2, hidden: int = 3, *, seed: int = 0) -> Recurrent:
    """A cell and its loop: b × t × inputs to b × t × hidden, the state after every moment, in float64.

    Raises UnknownName for another kind.

    >>> recurrent("gru")(torch.zeros(1, 5, 2, dtype=torch.float64)).shape
    torch.Size([1, 5, 3])
    """
    if kind not in KINDS:
        raise UnknownName("cell", kind, KINDS)
    cell = (nn.RNNCell if kind == "elman" else nn.GRUCell)(inputs, hidden, dtype=torch.float64)
    return drawn(Recurrent(cell), seed)


def arithmetic(
    example: Any, weights: Mapping[str, Any], upstream: Any = None, *, kind: str = "elman"
) -> dict[str, np.ndarray]:
    """Every moment forward, and back through time. `example` is t × inputs; states are t + 1 × hidden, the first all 0.

    elman: state = tanh(input_sums + memory_sums).
    gru: reset and update = σ(input_sums + memory_sums), candidate = tanh(input sum + reset × memory sum),
    state = (1 − update) × candidate + update × last state. Sums are t × 3 hidden: reset, update, candidate.
    d_states holds at each moment all that flows into that state: from above and from later.
    Raises UnknownName for another kind, UsageError for shapes that do not fit.

    >>> one = {"cell.weight_ih": [[1.0]], "cell.weight_hh": [[0.5]], "cell.bias_ih": [0.0], "cell.bias_hh": [0.0]}
    >>> arithmetic([[1.0], [0.0]], one)["states"].round(3).tolist()
    [[0.0], [0.762], [0.363]]
    """
    if kind not in KINDS:
        raise UnknownName("cell", kind, KINDS)
    x = of_rank(example, 2, "input")
    w_in, w_back, b_in, b_back = (
        np.asarray(weights[f"cell.{name}"], dtype=np.float64)
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    hidden = w_back.shape[1]
    if w_in.shape != ((1 if kind == "elman" else 3) * hidden, x.shape[1]):
        raise UsageError(f"Weights of {w_in.shape} do not fit an input of {x.shape}.", "Check kind and sizes.")
    time = len(x)
    states = np.zeros((time + 1, hidden))
    input_sums = x @ w_in.T + b_in
    memory_sums = np.zeros_like(input_sums)
    gates = {name: np.zeros((time, hidden)) for name in (("reset", "update", "candidate") if kind == "gru" else ())}
    for t in range(time):
        memory_sums[t] = w_back @ states[t] + b_back
        if kind == "elman":
            states[t + 1] = np.tanh(input_sums[t] + memory_sums[t])
            continue
        (r_in, z_in, n_in), (r_back, z_back, n_back) = np.split(input_sums[t], 3), np.split(memory_sums[t], 3)
        gates["reset"][t], gates["update"][t] = _sigmoid(r_in + r_back), _sigmoid(z_in + z_back)
        gates["candidate"][t] = np.tanh(n_in + gates["reset"][t] * n_back)
        states[t + 1] = (1 - gates["update"][t]) * gates["candidate"][t] + gates["update"][t] * states[t]
    output = states[1:]
    d_output = slopes(upstream, output)
    d_states = np.zeros_like(states)
    d_states[1:] = d_output
    d_input_sums, d_memory_sums = np.zeros_like(input_sums), np.zeros_like(memory_sums)
    d_gates = {f"d_{name}": np.zeros_like(gate) for name, gate in gates.items()}
    for t in reversed(range(time)):
        d_state = d_states[t + 1]
        if kind == "elman":
            d_input_sums[t] = d_memory_sums[t] = d_state * (1 - states[t + 1] ** 2)
        else:
            reset, update, candidate = (gates[name][t] for name in ("reset", "update", "candidate"))
            remembered = memory_sums[t, 2 * hidden :]
            d_candidate, d_update = d_state * (1 - update), d_state * (states[t] - candidate)
            d_n = d_candidate * (1 - candidate**2)
            d_reset = d_n * remembered
            d_r, d_z = d_reset * reset * (1 - reset), d_update * update * (1 - update)
            d_input_sums[t] = np.concatenate([d_r, d_z, d_n])
            d_memory_sums[t] = np.concatenate([d_r, d_z, d_n * reset])
            d_gates["d_reset"][t], d_gates["d_update"][t], d_gates["d_candidate"][t] = d_reset, d_update, d_candidate
            d_states[t] += d_state * update
        d_states[t] += w_back.T @ d_memory_sums[t]
    return {
        "input": x, "input_sums": input_sums, "memory_sums": memory_sums, **gates, "states": states, "output": output,
        "d_output": d_output, "d_states": d_states, **d_gates,
        "d_input_sums": d_input_sums, "d_memory_sums": d_memory_sums,
        "d_cell.weight_ih": d_input_sums.T @ x, "d_cell.bias_ih": d_input_sums.sum(0),
        "d_cell.weight_hh": d_memory_sums.T @ states[:-1], "d_cell.bias_hh": d_memory_sums.sum(0),
        "d_input": d_input_sums @ w_in,
    }  # fmt: skip


def _sigmoid(value: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(value / 2))  # as 1/(1 + e^−value), without overflow


def formulas(numbers: Numbers, *, kind: str = "elman") -> dict[str, Formula]:
    """Where each number of `arithmetic` came from."""
    hidden = numbers["states"].shape[1]
    found = {
        "input": Formula("t n", "What goes in at one moment."),
        "cell.weight_ih": Formula("k n", "How much an input counts; the same at every moment."),
        "cell.weight_hh": Formula("k g", "How much the last state counts; the same at every moment."),
        "cell.bias_ih": Formula("k", "What is added to the input's sum."),
        "cell.bias_hh": Formula("k", "What is added to the memory's sum."),
        "input_sums": Formula(
            "t k", "This moment's inputs × weights.", "input[t n] cell.weight_ih[k n] + cell.bias_ih[k]"
        ),
        "memory_sums": Formula("t k", "The last state × weights.", "states[t g] cell.weight_hh[k g] + cell.bias_hh[k]"),
        "output": Formula("t h", "The state after this moment.", "states[t+1 h]"),
        "d_output": Formula("t h", "The slope coming in from above, at this moment."),
        "d_cell.weight_ih": Formula("k n", "The slopes of all moments × inputs.", "d_input_sums[t k] input[t n]"),
        "d_cell.weight_hh": Formula("k g", "The slopes of all moments × states.", "d_memory_sums[t k] states[t g]"),
        "d_cell.bias_ih": Formula("k", "The slopes of all moments.", "d_input_sums[t k]"),
        "d_cell.bias_hh": Formula("k", "The slopes of all moments.", "d_memory_sums[t k]"),
        "d_input": Formula("t n", "How the loss moves with this input.", "d_input_sums[t k] cell.weight_ih[k n]"),
    }
    later = "d_output[s-1 h] + d_memory_sums[s k] cell.weight_hh[k h]"
    arrives = "All that flows into this state: from above, and from later."
    if kind == "elman":
        slope = "d_states[t+1 k] + - d_states[t+1 k] states[t+1 k] states[t+1 k]"
        about = "The slope before the tanh: 1 − state² of it passes."
        return found | {
            "states": Formula(
                "s h", "tanh of both sums; 0 at the start.", "input_sums[s-1 h] + memory_sums[s-1 h]", "tanh"
            ),
            "d_states": Formula("s h", arrives, later),
            "d_input_sums": Formula("t k", about, slope),
            "d_memory_sums": Formula("t k", about, slope),
        }
    r, z, n = "h", f"h+{hidden}", f"h+{2 * hidden}"

    def steep(name: str) -> str:
        return f"d_{name}[t h] {name}[t h] + - d_{name}[t h] {name}[t h] {name}[t h]"

    found |= {
        "reset": Formula("t h", "How much of the memory the candidate sees.", f"input_sums[t {r}] + memory_sums[t {r}]", "sigmoid"),
        "update": Formula("t h", "How much of the last state stays.", f"input_sums[t {z}] + memory_sums[t {z}]", "sigmoid"),
        "candidate": Formula("t h", "What the new state would be.", f"input_sums[t {n}] + reset[t h] memory_sums[t {n}]", "tanh"),
        "states": Formula(
            "s h",
            "(1 − update) × candidate + update × last state; 0 at the start.",
            "candidate[s-1 h] + - update[s-1 h] candidate[s-1 h] + update[s-1 h] states[s-1 h]",
        ),
        "d_states": Formula("s h", arrives, f"{later} + d_states[s+1 h] update[s h]"),
        "d_candidate": Formula("t h", "The state's slope × (1 − update).", "d_states[t+1 h] + - d_states[t+1 h] update[t h]"),
        "d_update": Formula("t h", "The state's slope × (last state − candidate).", "d_states[t+1 h] states[t h] + - d_states[t+1 h] candidate[t h]"),
        "d_reset": Formula(
            "t h",
            "The slope before the candidate's tanh × the memory's sum.",
            f"d_candidate[t h] memory_sums[t {n}] + - d_candidate[t h] candidate[t h] candidate[t h] memory_sums[t {n}]",
        ),
    }  # fmt: skip
    before_tanh = "d_candidate[t h] + - d_candidate[t h] candidate[t h] candidate[t h]"
    remembered = "d_candidate[t h] reset[t h] + - d_candidate[t h] candidate[t h] candidate[t h] reset[t h]"

    def gates(last: str) -> Rule:
        rules = [Formula("t h", "", rule) for rule in (steep("reset"), steep("update"), last)]
        return lambda at: terms_of(numbers, rules[at[1] // hidden], (at[0], at[1] % hidden))

    about = "The slope at this gate's sum: reset, update, candidate."
    return found | {
        "d_input_sums": Formula("t k", about, gates(before_tanh)),
        "d_memory_sums": Formula("t k", about, gates(remembered)),
    }
