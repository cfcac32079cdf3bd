"""Every number of every piece opens: the terms it names add up to it, and lead down to what was given."""

import numpy as np
import pytest
import torch

from neuralmine.architectures import PIECES, arithmetic, build, formulas
from neuralmine.architectures.terms import THEN, Formula, ancestors, explained, terms_of
from neuralmine.errors import UnknownName, UsageError

CASES = [
    *[("dense", {"inputs": 5, "outputs": 3, "activation": a}, (2, 5), {"activation": a})
      for a in ("sigmoid", "tanh", "relu", "linear")],
    ("dense", {"inputs": 5, "outputs": 3}, (2, 5), {"loss": "squared", "targets": [2, 0]}),
    ("dense", {"inputs": 5, "outputs": 3, "activation": "linear"}, (2, 5),
     {"activation": "linear", "loss": "cross_entropy", "targets": [2, 0]}),
    ("convolution", {"inputs": 2, "outputs": 2}, (2, 4, 5), {}),
    ("convolution", {"inputs": 1, "outputs": 2, "stride": 2, "padding": 1, "bias": False}, (1, 5, 4),
     {"stride": 2, "padding": 1}),
    ("pooling", {}, (2, 4, 5), {}),
    ("pooling", {"size": 3, "stride": 2, "padding": 1}, (1, 5, 5), {"size": 3, "stride": 2, "padding": 1}),
    ("pooling", {"kind": "average", "size": 3, "stride": 2, "padding": 1}, (1, 5, 5),
     {"kind": "average", "size": 3, "stride": 2, "padding": 1}),
    *[("normalisation", {"kind": k, "width": 4}, (3, 4), {"kind": k}) for k in ("batch", "layer", "group")],
    ("normalisation", {"width": 3}, (4, 3), {"training": False}),
    *[("normalisation", {"width": 2, "maps": True}, (2, 2, 2, 3), {"training": t}) for t in (True, False)],
    ("residual", {"inputs": 1, "outputs": 1}, (1, 4, 4), {}),
    ("residual", {"inputs": 1, "outputs": 2, "stride": 2}, (1, 4, 4), {"stride": 2}),
    ("inception", {"inputs": 1, "outputs": 2, "reduced": 1}, (1, 3, 3), {}),
    ("recurrent", {"kind": "elman", "inputs": 2, "hidden": 3}, (4, 2), {"kind": "elman"}),
    ("recurrent", {"kind": "gru", "inputs": 2, "hidden": 3}, (4, 2), {"kind": "gru"}),
    ("attention", {"width": 3, "head": 2}, (4, 3), {}),
    ("attention", {"width": 3, "head": 2, "heads": 2, "causal": True}, (4, 3), {"heads": 2, "causal": True}),
]  # fmt: skip


def numbers_of(name, built, shape, options):
    generator = torch.Generator().manual_seed(0)
    module = build({"name": name, **built})
    weights = {k: v.numpy().copy() for k, v in module.state_dict().items() if v.is_floating_point()}
    if name == "normalisation":
        weights = {k: v + torch.rand(v.shape, generator=generator).double().numpy() for k, v in weights.items()}
    x = torch.randn(shape, generator=generator, dtype=torch.float64).numpy()
    plain = arithmetic(name, x, weights, **options)
    upstream = torch.randn(plain["output"].shape, generator=generator, dtype=torch.float64).numpy()
    return {**weights, **arithmetic(name, x, weights, upstream, **options)}


@pytest.mark.parametrize(("name", "built", "shape", "options"), CASES)
def test_every_number_is_what_its_terms_make(name, built, shape, options):
    numbers = numbers_of(name, built, shape, options)
    rules = formulas(name, numbers, **options)
    assert set(numbers) - {"normalisation.num_batches_tracked"} <= set(rules)
    for array, formula in rules.items():
        assert len(formula.dims.split()) == numbers[array].ndim, array
        if formula.rule is None:
            continue
        for index in np.ndindex(numbers[array].shape):
            terms = terms_of(numbers, formula, index)
            made = THEN[formula.then]([term.value(numbers) for term in terms])
            assert made == pytest.approx(float(numbers[array][index]), rel=1e-9, abs=1e-12), (array, index)


@pytest.mark.parametrize(("name", "built", "shape", "options"), CASES)
def test_every_number_leads_down_to_what_was_given(name, built, shape, options):
    numbers = numbers_of(name, built, shape, options)
    rules = formulas(name, numbers, **options)
    found = ancestors(numbers, rules, "d_input", (0,) * numbers["d_input"].ndim)
    ends = {array for array in found if rules[array].rule is None}
    assert ("ideal" if "loss" in options else "d_output") in ends  # every slope begins at the output's
    for array in ends:
        opened = explained(numbers, rules, array, next(iter(found[array])))
        assert opened.given
        assert not opened.terms
    whole = ancestors(numbers, rules, "output", (0,) * numbers["output"].ndim)
    assert "d_output" not in whole
    assert "input" in whole


def test_what_a_number_was_made_of_is_what_moves_it():
    # An input outside the ancestors of an output leaves it as it is; one inside moves it (a kernel without zeros).
    numbers = numbers_of("convolution", {"inputs": 1, "outputs": 1}, (1, 5, 5), {})
    rules = formulas("convolution", numbers)
    inside = ancestors(numbers, rules, "output", (0, 1, 2))["input"]
    for place in np.ndindex(1, 5, 5):
        moved = numbers["input"].copy()
        moved[place] += 1
        now = arithmetic("convolution", moved, numbers)["output"][0, 1, 2]
        assert (now != numbers["output"][0, 1, 2]) == (place in inside)


def test_all_pieces_are_here_and_terms_come_largest_first():
    assert {case[0] for case in CASES} == set(PIECES)
    numbers = numbers_of(*CASES[0])
    terms = explained(numbers, formulas("dense", numbers), "sums", (1, 2)).terms
    sizes = [abs(term.value(numbers)) for term in terms]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) == 6


def test_what_cannot_be_opened_is_said():
    numbers = numbers_of(*CASES[0])
    rules = formulas("dense", numbers)
    with pytest.raises(UnknownName, match="products"):
        explained(numbers, rules, "product", (0,))
    for index in ((0,), (0, 3), (-1, 0)):
        with pytest.raises(UsageError):
            explained(numbers, rules, "sums", index)
    with pytest.raises(UnknownName):
        formulas("dropout", {})
    with pytest.raises(UsageError, match="groups"):
        formulas("convolution", {}, groups=2)
    with pytest.raises(UsageError):
        formulas("normalisation", {"input": np.zeros((2, 2, 2))}, kind="layer")


@pytest.mark.parametrize(
    ("rule", "at", "places"),
    [
        ("x[2i+y-1]", 0, [0, 1, 2, 3, 4]),  # y = 0 falls outside: absent
        ("x[(i-y)/2]", 3, [1, 0]),  # y = 1 and 3; the others do not divide
        ("x[i+2]", 4, []),
    ],
)
def test_an_index_may_be_shifted_strided_and_divided(rule, at, places):
    numbers = {"x": np.arange(6.0), "k": np.ones(6)}
    terms = terms_of(numbers, Formula("i", "", f"{rule} k[y]" if "y" in rule else rule), (at,))
    assert [term.operands[0].index[0] for term in terms] == places


def test_a_rule_multiplies_and_divides():
    numbers = {"x": np.arange(6.0)}
    (term,) = terms_of(numbers, Formula("i", "", "-2 x[i] /x[4]"), (3,))
    assert term.value(numbers) == -2 * 3 / 4
