"""The architecture pieces on real examples: worked forward and backward, compared with torch, opened number by number."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from fastapi import FastAPI, Response

from .. import architectures
from ..architectures.terms import Formula, Index, Term, ancestors, explained, terms_of
from ..errors import UnknownName, UsageError
from ..types import Check
from . import piece_examples as examples
from .answers import binary
from .requests import NumberEdit, PieceNumberRequest, PieceRequest

BOUND = 1e-5  # for the gap to torch, and to the central difference
STEP = 1e-5  # of the central difference: its own error is about STEP²


@dataclass(frozen=True, slots=True)
class Worked:
    """A piece's arithmetic on one example: every number by name, weights too, and how each was made."""

    case: examples.Case
    weights: Mapping[str, np.ndarray]
    upstream: np.ndarray
    numbers: Mapping[str, np.ndarray]
    formulas: Mapping[str, Formula]

    @property
    def given(self) -> list[str]:
        """What a hand may change: the input, the weights, and the slope coming in."""
        return [name for name, formula in self.formulas.items() if formula.rule is None and name != "ideal"]


def listed() -> list[dict[str, Any]]:
    """Every piece with its words and controls."""
    return [{"name": name, **asdict(about)} for name, about in examples.ABOUT.items()]


def report(asked: PieceRequest) -> dict[str, Any]:
    """All numbers of a piece on one example, and how near torch comes to them."""
    worked = _worked(_key(asked))
    return {
        "piece": asked.piece,
        "options": worked.case.shown,
        "numbers": dict(worked.numbers),
        "dims": {name: formula.dims for name, formula in worked.formulas.items()},
        "about": {name: formula.about for name, formula in worked.formulas.items()},
        "given": worked.given,
        "names": worked.case.names,
        "said": worked.case.said,
        "total": worked.case.total,
        "paints": worked.case.paints,
        "checks": _against_torch(worked),
        "python": _python(asked, worked),
    }


def opened(asked: PieceNumberRequest) -> dict[str, Any]:
    """One number with its terms; or, where the index has gaps, what a whole row or block of numbers was made of.

    Raises UnknownName and UsageError for a number that is not there.
    """
    worked = _worked(_key(asked))
    if asked.array not in worked.formulas:
        raise UnknownName("number", asked.array, worked.formulas)
    numbers, shape = worked.numbers, worked.numbers[asked.array].shape
    if len(asked.at) != len(shape):
        raise UsageError(f"{asked.array} has {len(shape)} axes, not {len(asked.at)}.", "Give one index for each.")
    ranges = [range(size) if at is None else (at,) for at, size in zip(asked.at, shape, strict=True)]
    if None in asked.at:
        places = list(itertools.product(*ranges))
        found: dict[str, set[Index]] = {}
        for place in places:
            for term in terms_of(numbers, worked.formulas[asked.array], place):
                for one in term.operands:
                    found.setdefault(one.array, set()).add(one.index)
        return {"operands": _flat(numbers, found), "sources": {}}
    index = tuple(at for at in asked.at if at is not None)
    one = explained(numbers, worked.formulas, asked.array, index)
    return {
        "array": one.array, "index": index, "value": one.value, "about": one.about, "then": one.then, "given": one.given,
        "terms": [
            {
                "coefficient": term.coefficient,
                "value": term.value(numbers),
                "operands": _valued(numbers, term),
                "factors": _factors(worked, term),
            }
            for term in one.terms
        ],
        "operands": _flat(numbers, _sets(o for term in one.terms for o in term.operands)),
        "sources": _flat(numbers, ancestors(numbers, worked.formulas, asked.array, index)),
        "slope": _slope(worked, asked.array, index) if one.given and asked.array in worked.given else None,
    }  # fmt: skip


def _valued(numbers: Mapping[str, np.ndarray], term: Term) -> list[dict[str, Any]]:
    return [{**asdict(o), "value": float(numbers[o.array][o.index])} for o in term.operands]


def _factors(worked: Worked, term: Term) -> dict[str, Any] | None:
    """What a term that is one number was multiplied of, where that number is a product: a sum then reads a × b + c × d."""
    if len(term.operands) != 1 or term.operands[0].power != 1:
        return None
    (one,) = term.operands
    formula = worked.formulas[one.array]
    inner = terms_of(worked.numbers, formula, one.index)
    if formula.then or len(inner) != 1 or len(inner[0].operands) < 2:
        return None
    return {"coefficient": term.coefficient * inner[0].coefficient, "operands": _valued(worked.numbers, inner[0])}


def _sets(operands: Any) -> dict[str, set[Index]]:
    found: dict[str, set[Index]] = {}
    for one in operands:
        found.setdefault(one.array, set()).add(one.index)
    return found


def _flat(numbers: Mapping[str, np.ndarray], found: Mapping[str, set[Index]]) -> dict[str, list[int]]:
    """Places counted row by row, as the page draws them."""
    return {
        name: sorted(int(np.ravel_multi_index(place, numbers[name].shape)) for place in places)
        for name, places in found.items()
    }


def _key(asked: PieceRequest) -> str:
    return PieceRequest(**asked.model_dump(include=set(PieceRequest.model_fields))).model_dump_json()


@functools.lru_cache(maxsize=16)
def _worked(key: str) -> Worked:
    asked = PieceRequest.model_validate_json(key)
    case = examples.case(asked)
    inputs, weights = {"input": case.example.copy()}, {name: value.copy() for name, value in case.weights.items()}
    _edit(inputs, asked.edits)
    _edit(weights, asked.edits)
    plain = architectures.arithmetic(case.piece, inputs["input"], weights, **case.options)
    slopes = {"d_output": plain["d_output"].copy()}
    if "loss" not in case.options:
        if asked.upstream == "seeded":
            slopes["d_output"] = np.random.default_rng(asked.seed).standard_normal(plain["output"].shape).round(2)
        _edit(slopes, asked.edits)
    upstream = slopes["d_output"]
    numbers = {**weights, **architectures.arithmetic(case.piece, inputs["input"], weights, upstream, **case.options)}
    formulas = architectures.formulas(case.piece, numbers, **case.options)
    worked = Worked(case, weights, upstream, numbers, formulas)
    for edit in asked.edits:
        if edit.array not in worked.given:
            raise UsageError(f"{edit.array!r} is worked out, not given.", f"Change one of {', '.join(worked.given)}.")
    return worked


def _edit(arrays: Mapping[str, np.ndarray], edits: list[NumberEdit]) -> None:
    for edit in edits:
        if edit.array not in arrays:
            continue
        array, index = arrays[edit.array], tuple(edit.index)
        if len(index) != array.ndim or not all(0 <= at < size for at, size in zip(index, array.shape, strict=True)):
            raise UsageError(f"{edit.array} has shape {array.shape}; there is no {edit.index}.", "Choose one inside.")
        array[index] = edit.value


def _against_torch(worked: Worked) -> list[Check]:
    """The largest gaps between our arithmetic and torch.autograd on this very example."""
    import torch

    case = worked.case
    module = architectures.build(case.build)
    module.load_state_dict({k: torch.as_tensor(v) for k, v in worked.weights.items()}, strict=False)
    module.train(bool(case.options.get("training", True)))
    x = torch.tensor(worked.numbers["input"], requires_grad=True)
    with torch.enable_grad():
        output = module(x) if case.batched else module(x[None])[0]
        output.backward(torch.as_tensor(worked.upstream))
    made = {"output": output.detach(), **{name.split(".")[-1]: buffer for name, buffer in module.named_buffers()}}
    forward = max(_gap(worked.numbers[name], found.numpy()) for name, found in made.items() if name in worked.numbers)
    slopes = {"d_input": x.grad, **{f"d_{name}": p.grad for name, p in module.named_parameters()}}
    backward = max(_gap(worked.numbers[name], slope.numpy()) for name, slope in slopes.items() if slope is not None)
    meaning = "The largest gap between a number worked here and torch's own, on exactly this example, measured now."
    return [
        Check("forward equals torch to 1e-5", forward, BOUND, None, forward < BOUND, meaning),
        Check("backward equals torch.autograd to 1e-5", backward, BOUND, None, backward < BOUND, meaning),
    ]


def _gap(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours - theirs).max())


def _slope(worked: Worked, array: str, index: Index) -> dict[str, float | bool] | None:
    """The slope of the loss by this number as it was worked out, and as a central difference finds it."""
    if f"d_{array}" not in worked.numbers:
        return None
    losses = []
    for move in (STEP, 0, -STEP):
        inputs, weights = {"input": worked.numbers["input"].copy()}, {k: v.copy() for k, v in worked.weights.items()}
        (inputs if array == "input" else weights)[array][index] += move
        again = architectures.arithmetic(
            worked.case.piece, inputs["input"], weights, worked.upstream, **worked.case.options
        )
        losses.append(float(again["loss"][0] if "loss" in again else (again["output"] * worked.upstream).sum()))
    right, left = (losses[0] - losses[1]) / STEP, (losses[1] - losses[2]) / STEP
    ours, found = float(worked.numbers[f"d_{array}"][index]), (losses[0] - losses[2]) / (2 * STEP)
    size = max(abs(ours), abs(found))
    # Where a ReLU or a maximum changes sides, there is one slope to the left and another to the right.
    kink = abs(right - left) > 1e-2 * max(abs(right), abs(left), 1e-6)
    error = abs(ours - found) / size if size > 1e-9 else 0.0
    return {"ours": ours, "central": found, "error": error, "bound": BOUND, "left": left, "right": right, "kink": kink}


def _python(asked: PieceRequest, worked: Worked) -> str:
    """Code that gives the same numbers."""
    case = worked.case
    lines = [
        "import numpy as np",
        "import neuralmine as nm",
        "from neuralmine.architectures import arithmetic, build",
        "",
    ]
    lines += case.code
    for edit in asked.edits:
        target = edit.array if edit.array in ("input", "d_output") else f"weights[{edit.array!r}]"
        if target != "d_output":
            lines.append(f"{target.replace('input', 'example')}[{', '.join(map(str, edit.index))}] = {edit.value!r}")
    said = "".join(f", {name}={value!r}" for name, value in case.options.items())
    upstream = "None"
    if "loss" not in case.options:
        shape = worked.upstream.shape
        made = f"np.random.default_rng({asked.seed}).standard_normal({shape}).round(2)"
        lines.append(f"upstream = {made if asked.upstream == 'seeded' else f'np.ones({shape})'}")
        lines += [
            f"upstream[{', '.join(map(str, edit.index))}] = {edit.value!r}"
            for edit in asked.edits
            if edit.array == "d_output"
        ]
        upstream = "upstream"
    lines += [f"worked = arithmetic({case.piece!r}, example, weights, {upstream}{said})", 'print(worked["output"])']
    return "\n".join([*lines, 'print(worked["d_input"])', ""])


def add(app: FastAPI) -> None:
    """The routes of the pieces."""

    @app.get("/api/pieces")
    def list_pieces() -> list[dict[str, Any]]:
        """The architecture pieces, what each does, and what can be set."""
        return listed()

    @app.post("/api/piece")
    def work_piece(asked: PieceRequest) -> Response:
        """One example worked through a piece, forward and backward, and the largest gap to torch's autograd."""
        return binary(report(asked))

    @app.post("/api/piece/number")
    def open_number(asked: PieceNumberRequest) -> Response:
        """One number of it: the terms it is made of, and where they stand."""
        return binary(opened(asked))
