"""Where each number of a piece came from: formulas written like einsum, opened into terms whose operands are numbers too.

A formula is a sum of products of named numbers: "windows[o i j c y x] kernel[o c y x] + bias[o]". A letter that the
result lacks is summed over; an index may be shifted, strided or divided ("2i+y-1", "(P-y)/2"), and where it falls
outside the array, or does not divide, the term is absent: that is what padding is. "/" divides, a number multiplies.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UnknownName, UsageError

Numbers = Mapping[str, np.ndarray]
Index = tuple[int, ...]

# What is done to the sum of the terms.
THEN: dict[str, Callable[[list[float]], float]] = {
    "": math.fsum,
    "relu": lambda terms: max(0.0, math.fsum(terms)),
    "open": lambda terms: float(math.fsum(terms) > 0),
    "tanh": lambda terms: math.tanh(math.fsum(terms)),
    "sigmoid": lambda terms: 0.5 * (1 + math.tanh(math.fsum(terms) / 2)),
    "exp": lambda terms: math.exp(math.fsum(terms)),
    "−log": lambda terms: -math.log(math.fsum(terms)),
    "1/√": lambda terms: math.fsum(terms) ** -0.5,
    "largest": max,
    "or −∞": lambda terms: math.fsum(terms) if terms else -math.inf,
}


@dataclass(frozen=True, slots=True)
class Operand:
    """A number of the piece, by its array and its place there, to a power: −1 where it divides."""

    array: str
    index: Index
    power: int = 1


@dataclass(frozen=True, slots=True)
class Term:
    """coefficient × operands."""

    coefficient: float
    operands: tuple[Operand, ...] = ()

    def value(self, numbers: Numbers) -> float:
        product = self.coefficient
        for one in self.operands:
            product *= float(numbers[one.array][one.index]) ** one.power
        return product


Rule = Callable[[Index], list[Term]]


@dataclass(frozen=True, slots=True)
class Formula:
    """How every number of one array is made; without a rule it is given: the input, a weight, the slope coming in.

    `dims` are the letters of its axes ("o i j"), `about` one sentence; the rule is a string (see above) or a function
    of the index that gives terms.
    """

    dims: str
    about: str
    rule: str | Rule | None = None
    then: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """One number and the terms it is made of, the largest first; none where it is given. `then` is done to their sum."""

    array: str
    index: Index
    value: float
    about: str
    then: str
    terms: tuple[Term, ...]
    given: bool


def explained(numbers: Numbers, formulas: Mapping[str, Formula], array: str, index: Index) -> Explanation:
    """One number of a piece's arithmetic, opened.

    Raises UnknownName for an array that has no formula, UsageError for a place it does not have.

    >>> numbers = {"x": np.array([1.0, 2.0]), "sum": np.array([3.0])}
    >>> rules = {"x": Formula("n", "given"), "sum": Formula("z", "both", "x[n]")}
    >>> [term.operands[0].index for term in explained(numbers, rules, "sum", (0,)).terms]
    [(1,), (0,)]
    """
    if array not in formulas:
        raise UnknownName("number", array, formulas)
    shape = numbers[array].shape
    if len(index) != len(shape) or not all(0 <= at < size for at, size in zip(index, shape, strict=True)):
        raise UsageError(f"{array} has shape {shape}; there is no place {index}.", "Choose one inside.")
    formula = formulas[array]
    terms = terms_of(numbers, formula, index)
    terms.sort(key=lambda term: -abs(term.value(numbers)))
    return Explanation(
        array, index, float(numbers[array][index]), formula.about, formula.then, tuple(terms), formula.rule is None
    )


def terms_of(numbers: Numbers, formula: Formula, index: Index) -> list[Term]:
    """The terms of one number, as the formula lists them."""
    if formula.rule is None:
        return []
    if callable(formula.rule):
        return formula.rule(index)
    here = dict(zip(formula.dims.split(), index, strict=True))
    return [term for addend in formula.rule.split(" + ") for term in _terms(numbers, addend, here)]


def ancestors(numbers: Numbers, formulas: Mapping[str, Formula], array: str, index: Index) -> dict[str, set[Index]]:
    """Every number that this one was made from, directly or not, down to what is given.

    >>> rules = {"x": Formula("n", ""), "sum": Formula("z", "", "x[n]"), "twice": Formula("z", "", "2 sum[z]")}
    >>> found = ancestors({"x": np.ones(2), "sum": np.ones(1), "twice": np.ones(1)}, rules, "twice", (0,))
    >>> {name: len(places) for name, places in found.items()}
    {'sum': 1, 'x': 2}
    """
    seen: dict[str, set[Index]] = {}
    waiting = [(array, index)]
    while waiting:
        name, at = waiting.pop()
        for term in terms_of(numbers, formulas[name], at):
            for one in term.operands:
                places = seen.setdefault(one.array, set())
                if one.index not in places:
                    places.add(one.index)
                    waiting.append((one.array, one.index))
    return seen


_FACTOR = re.compile(r"(/?)([\w.]+)\[([^\]]*)\]")
_PART = re.compile(r"([+-]?)(\d*)([A-Za-z]?)")


def _terms(numbers: Numbers, addend: str, here: Mapping[str, int]) -> Iterator[Term]:
    """The terms of one addend: one for each value of the letters that the result lacks."""
    addend = addend.strip()
    coefficient, factors = _read(addend)
    sizes: dict[str, int] = {}
    for name, _, tokens in factors:
        for axis, token in enumerate(tokens):
            if len(token) == 1 and token.isalpha() and token not in here:
                sizes.setdefault(token, numbers[name].shape[axis])
    for values in itertools.product(*map(range, sizes.values())):
        place = {**here, **dict(zip(sizes, values, strict=True))}
        operands = []
        for name, power, tokens in factors:
            index = tuple(_at(token, place) for token in tokens)
            if any(at is None or not 0 <= at < size for at, size in zip(index, numbers[name].shape, strict=True)):
                break
            operands.append(Operand(name, tuple(at for at in index if at is not None), power))
        else:
            yield Term(coefficient, tuple(operands))


_known: dict[str, tuple[float, list[tuple[str, int, list[str]]]]] = {}


def _read(addend: str) -> tuple[float, list[tuple[str, int, list[str]]]]:
    """A coefficient, and the factors: array, power, index tokens."""
    if addend not in _known:
        factors = [(name, -1 if over else 1, tokens.split()) for over, name, tokens in _FACTOR.findall(addend)]
        head = _FACTOR.split(addend, maxsplit=1)[0].strip()
        _known[addend] = (float({"": 1, "-": -1}.get(head, head)), factors)
    return _known[addend]


def _at(token: str, place: Mapping[str, int]) -> int | None:
    """An index such as "2i+y-1" or "(P-y)/2"; None where it does not divide."""
    linear, _, divisor = token.partition("/")
    total = 0
    for sign, count, letter in _PART.findall(linear.strip("()")):
        if count or letter:
            total += (-1 if sign == "-" else 1) * int(count or 1) * (place[letter] if letter else 1)
    if divisor and total % int(divisor):
        return None
    return total // int(divisor) if divisor else total


def prefixed(formulas: Mapping[str, Formula], rename: Callable[[str], str]) -> dict[str, Formula]:
    """The same formulas with every array under another name: those of a convolution inside a block."""

    def renamed(rule: Any) -> Any:
        return rule if not isinstance(rule, str) else _FACTOR.sub(lambda m: f"{m[1]}{rename(m[2])}[{m[3]}]", rule)

    return {
        rename(name): Formula(formula.dims, formula.about, renamed(formula.rule), formula.then)
        for name, formula in formulas.items()
    }
