"""The pieces over HTTP: torch agrees on every option, every shown number opens, and the Python that is copied runs."""

import numpy as np
import pytest
import torch

from neuralmine.errors import UnknownName, UsageError
from neuralmine.server import pieces
from neuralmine.server.requests import NumberEdit, PieceNumberRequest, PieceRequest

OPTIONS = [
    ("dense", {}), ("dense", {"weights": "seeded", "activation": "linear", "loss": "cross_entropy"}),
    ("convolution", {}), ("convolution", {"kernel": "seeded", "size": 5, "stride": 2, "padding": 2}),
    ("convolution", {"kernel": "blur", "padding": 1}),
    ("pooling", {}), ("pooling", {"kind": "average", "size": 3, "stride": 1, "padding": 1}),
    *[("normalisation", {"kind": kind}) for kind in ("batch", "maps", "layer", "group")],
    ("normalisation", {"mode": "eval"}), ("normalisation", {"kind": "maps", "mode": "eval"}),
    ("convolution", {"kernel": "trained", "padding": 1}),
    ("residual", {}), ("residual", {"stride": 2, "strength": 0.0}), ("inception", {"strength": 2.0}),
    ("recurrent", {}), ("recurrent", {"kind": "gru", "hidden": 2}),
    ("attention", {"tokens": "rows"}), ("attention", {"tokens": "rows", "causal": "yes", "head": 2, "heads": "four"}),
    ("attention", {"tokens": "trained", "heads": "one"}),
]  # fmt: skip


@pytest.mark.parametrize(("piece", "options"), OPTIONS)
def test_torch_agrees_and_the_copied_python_gives_the_same(piece, options):
    asked = PieceRequest(piece=piece, options=options, index=7, seed=3)
    edits = [NumberEdit(array=name, index=[0] * len(pieces.report(asked)["numbers"][name].shape), value=0.75)
             for name in pieces.report(asked)["given"]]  # fmt: skip
    asked = asked.model_copy(update={"edits": edits})
    report = pieces.report(asked)
    for check in report["checks"]:
        assert check.passed
        assert check.measured < 1e-9
    ran: dict = {}
    exec(report["python"].replace("print(", "str("), ran)
    for name in ("output", "d_input"):
        np.testing.assert_allclose(ran["worked"][name], report["numbers"][name], rtol=0, atol=1e-12)
    for edit in edits:
        assert report["numbers"][edit.array][tuple(edit.index)] == 0.75


def opened(array, at, piece="convolution", **more):
    return pieces.opened(PieceNumberRequest(piece=piece, array=array, at=at, **more))


def test_a_number_opens_down_to_the_pixels():
    found = opened("output", [0, 2, 3], index=7)
    assert found["value"] == pytest.approx(sum(term["value"] for term in found["terms"]))
    assert set(found["sources"]["input"]) == {8 * y + x for y in (2, 3, 4) for x in (3, 4, 5)}
    assert set(found["operands"]) == {"products", "convolution.bias"}
    for term in found["terms"]:  # a sum reads a × b + c × d: the bias alone is no product
        if term["operands"][0]["array"] == "products":
            a, b = (o["value"] for o in term["factors"]["operands"])
            assert term["value"] == term["factors"]["coefficient"] * a * b
        else:
            assert term["factors"] is None
    block = opened("windows", [0, 2, 3, 0, None, None], index=7)
    assert block["operands"]["input"] == sorted(found["sources"]["input"])


@pytest.mark.parametrize(("piece", "options"), OPTIONS[:5] + OPTIONS[7:])
def test_slopes_of_given_numbers_agree_with_central_differences(piece, options):
    report = pieces.report(PieceRequest(piece=piece, options=options, index=7))
    for array in report["given"]:
        if f"d_{array}" not in report["numbers"]:
            continue
        at = [size // 2 for size in report["numbers"][array].shape]
        slope = opened(array, at, piece, options=options, index=7)["slope"]
        if slope["kink"]:  # where the largest changes, or a ReLU opens: ours is one of the two
            assert min(abs(slope["ours"] - slope[side]) for side in ("left", "right")) < 1e-3
        else:
            assert slope["error"] < 1e-5
        assert slope["ours"] == report["numbers"][f"d_{array}"][tuple(at)]


def test_every_head_s_score_reads_as_products_of_query_and_key():
    asked = {"options": {"tokens": "rows", "heads": "two"}, "index": 7}
    found = opened("scores", [1, 2, 4], "attention", **asked)
    numbers = pieces.report(PieceRequest(piece="attention", **asked))["numbers"]
    pairs = {tuple(o["array"] for o in term["factors"]["operands"]) for term in found["terms"]}
    assert pairs == {("query", "key")}
    by_hand = numbers["query"][1, 2] @ numbers["key"][1, 4] / 3**0.5
    made = sum(
        t["factors"]["coefficient"] * np.prod([o["value"] for o in t["factors"]["operands"]]) for t in found["terms"]
    )
    assert made == pytest.approx(by_hand)


def test_each_example_s_part_adds_up_to_the_loss():
    numbers = pieces.report(PieceRequest(piece="dense"))["numbers"]
    assert numbers["contributions"].shape == (3,)
    assert numbers["contributions"].sum() == pytest.approx(numbers["loss"][0], abs=1e-15)


def test_running_statistics_are_torch_s_and_decide_when_not_training():
    """By hand: torch's own batch norm sees all digits' maps, 32 at a time; this batch moves it once more."""
    asked = {"kind": "maps", "mode": "train"}
    train = pieces.report(PieceRequest(piece="normalisation", options=asked, index=7))["numbers"]
    norm = torch.nn.BatchNorm2d(4, dtype=torch.float64)
    with torch.no_grad():
        norm.running_mean.copy_(torch.tensor(train["normalisation.running_mean"]))
        norm.running_var.copy_(torch.tensor(train["normalisation.running_var"]))
        norm(torch.tensor(train["input"]))
        np.testing.assert_allclose(train["running_mean"], norm.running_mean.numpy(), atol=1e-12)
        np.testing.assert_allclose(train["running_var"], norm.running_var.numpy(), atol=1e-12)
        still = pieces.report(PieceRequest(piece="normalisation", options={**asked, "mode": "eval"}, index=7))[
            "numbers"
        ]
        norm.running_mean.copy_(torch.tensor(still["normalisation.running_mean"]))
        norm.running_var.copy_(torch.tensor(still["normalisation.running_var"]))
        np.testing.assert_allclose(still["output"], norm.eval()(torch.tensor(still["input"])).numpy(), atol=1e-12)
    assert "running_mean" not in still
    edit = NumberEdit(array="normalisation.running_var", index=[0], value=-1.0)
    with pytest.raises(UsageError, match="below 0"):
        pieces.report(PieceRequest(piece="normalisation", options={"mode": "eval"}, edits=[edit]))


def test_every_piece_is_listed_with_its_words():
    listed = pieces.listed()
    assert [one["name"] for one in listed] == list(pieces.architectures.PIECES)
    assert all(one["does"] and one["why"] and one["source"] for one in listed)


def test_what_cannot_be_worked_is_said():
    for wrong in (
        {"piece": "dropout"},
        {"piece": "dense", "options": {"size": 3}},
        {"piece": "pooling", "options": {"kind": "median"}},
    ):
        with pytest.raises(UnknownName):
            pieces.report(PieceRequest(**wrong))
    edit = {"array": "input", "index": [0, 9, 0], "value": 1.0}
    for wrong in (
        {"index": 5000}, {"options": {"size": 9}}, {"options": {"size": 2.5}}, {"edits": [edit]},
        {"edits": [{**edit, "array": "output", "index": [0, 0, 0]}]},
    ):  # fmt: skip
        with pytest.raises(UsageError):
            pieces.report(PieceRequest(piece="convolution", **wrong))
    with pytest.raises(UsageError):
        opened("output", [0, 2])
    with pytest.raises(UsageError):
        opened("output", [0, 2, 9])
