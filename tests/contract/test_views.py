"""What every kind of view promises: text, the same picture twice, and words for what does not fit."""

import numpy as np
import pytest

from neuralmine import views
from neuralmine.errors import UsageError
from neuralmine.wire import pack

RAMP = np.linspace(0, 1, 72).reshape(4, 6, 3)
CASES = {
    "graph": [views.Graph("t", (("", "input", "3 × 8"), ("a" * 60, "a" * 60, "Linear"), ("add 1", "add", "")), (("", "a" * 60), ("a" * 60, "add 1"), ("", "add 1"))), views.Graph("none", (), ())],
    "grid": [views.Grid("t", np.array([[1.0, -2.0]])), views.Grid("zeros", np.zeros((3, 3)), "magnitude"), views.Grid("one", np.ones((1, 1)), "ink", 1.0)],
    "bars": [views.Bars("t", ("a", "b" * 60), np.array([0.5, -1.0]), 0, signed=True), views.Bars("zeros", ("a",), np.zeros(1))],
    "lines": [views.Lines("t", np.arange(3.0), {"a": np.array([1.0, np.nan, 2.0])}, "x", "y", 1.0), views.Lines("point", np.zeros(1), {"a": np.zeros(1)})],
    "table": [views.Table("t", ("a", "b"), (("x", 1.0), (None, 2)), ("sum", 3.0)), views.Table("none", ("a",), ())],
    "picture": [views.Picture("t", RAMP), views.Picture("sheet", np.stack([RAMP, 1 - RAMP]), ("a ramp", "b" * 60)), views.Picture("nameless", np.ones((1, 1, 1, 3), np.float32))],
    "overlay": [views.Overlay("t", RAMP, np.array([[0.0, 4.0], [-1.0, 0.0]]), limit=2.0), views.Overlay("zeros", RAMP, np.zeros((1, 1))), views.Overlay("gold", RAMP, np.ones((4, 6)), "magnitude")],
    "surface": [views.Surface("t", np.arange(3.0), np.arange(2.0), np.array([[1.0, np.nan, 2.0], [0.0, np.inf, 4.0]]), path=np.zeros((2, 2))), views.Surface("flat", np.arange(2.0), np.arange(2.0), np.ones((2, 2)), mark=None), views.Surface("nothing", np.arange(2.0), np.arange(2.0), np.full((2, 2), np.nan)), views.Surface("bowl", np.linspace(-1, 1, 9), np.linspace(-1, 1, 7), np.linspace(-1, 1, 9) ** 2 + np.linspace(-1, 1, 7)[:, None] ** 2)],
}  # fmt: skip


def test_every_kind_has_a_case():
    assert set(CASES) == {getattr(views, name).kind for name in views.__all__ if name not in ("View", "number")}


@pytest.mark.parametrize(
    "view", [view for cases in CASES.values() for view in cases], ids=lambda v: f"{v.kind}-{v.title}"
)
def test_a_view_can_be_read_drawn_and_sent(view):
    assert view.title in view.text()
    assert view.to_svg() == view.to_svg()
    assert view.to_svg().startswith("<?xml")
    assert view.to_png() == view.to_png()
    assert pack(view)[0]["kind"] == view.kind


@pytest.mark.parametrize("make", [
    lambda: views.Grid("t", np.zeros(3)), lambda: views.Grid("t", np.zeros((1, 1)), "rainbow"),
    lambda: views.Bars("t", ("a",), np.zeros(2)), lambda: views.Lines("t", np.zeros(2), {"a": np.zeros(3)}),
    lambda: views.Table("t", ("a",), ((1, 2),)),
    lambda: views.Graph("t", (("a", "a", ""),), (("a", "b"),)), lambda: views.Graph("t", (("a", "a", ""), ("a", "b", "")), ()),
    lambda: views.Graph("t", (("a", "a", ""), ("b", "b", "")), (("a", "b"), ("b", "a"))),
    lambda: views.Graph("t", (("a", "a", ""), ("b", "b", "")), (("a", "b"),), (1, 0)), lambda: views.Graph("t", (("a", "a", ""),), (), (0, 1)),
    lambda: views.Picture("t", RAMP[..., 0]), lambda: views.Picture("t", 2 * RAMP), lambda: views.Picture("t", RAMP * np.nan),
    lambda: views.Picture("t", np.zeros((2, 2, 3), np.uint8)), lambda: views.Picture("t", RAMP, ("a",)),
    lambda: views.Picture("t", RAMP[None], ("a", "b")), lambda: views.Picture("t", RAMP[:0]),
    lambda: views.Overlay("t", RAMP, np.zeros(4)), lambda: views.Overlay("t", RAMP, np.zeros((5, 6))),
    lambda: views.Overlay("t", RAMP, np.full((2, 2), np.nan)), lambda: views.Overlay("t", RAMP, -np.ones((2, 2)), "magnitude"),
    lambda: views.Overlay("t", RAMP, np.ones((2, 2)), "ink"), lambda: views.Overlay("t", RAMP, np.ones((2, 2)), limit=0.0),
    lambda: views.Overlay("t", RAMP[None], np.ones((2, 2))),
    lambda: views.Surface("t", np.arange(3.0), np.arange(2.0), np.ones((3, 2))), lambda: views.Surface("t", np.zeros(2), np.arange(2.0), np.ones((2, 2))),
    lambda: views.Surface("t", np.arange(1.0), np.arange(2.0), np.ones((2, 1))), lambda: views.Surface("t", np.arange(2.0), np.arange(2.0), np.ones((2, 2)), mark=(0.0,)),
    lambda: views.Surface("t", np.arange(2.0), np.arange(2.0), np.ones((2, 2)), path=np.zeros(2)),
])  # fmt: skip
def test_what_does_not_fit_is_refused(make):
    with pytest.raises(UsageError):
        make()


def test_an_overlay_says_where_and_how_concentrated():
    values = np.zeros((5, 5))
    values[0, 4], values[4, 0], values[2, 2] = 6.0, -3.0, 1.0
    text = views.Overlay("t", np.zeros((50, 100, 3)), values).text()
    assert "most positive: 6 at row 5, column 90 of the picture (upper right)" in text
    assert "most negative: −3 at row 45, column 10 of the picture (lower left)" in text
    assert "(3 of 25) hold 100 % of the absolute sum; spread evenly it would be 12 %" in text


def test_an_overlay_is_drawn_bilinearly_with_the_cells_centres_at_their_places():
    from torch import tensor
    from torch.nn.functional import interpolate

    from neuralmine.views.overlay import _between

    values = np.array([[0.0, 4.0, 1.0], [-1.0, 0.0, 2.0]])
    ours = _between(7, 2) @ values @ _between(10, 3).T
    theirs = interpolate(tensor(values)[None, None], (7, 10), mode="bilinear", align_corners=False)[0, 0].numpy()
    assert np.allclose(ours, theirs)


@pytest.mark.parametrize("kind", ["graph", "picture", "overlay"])
def test_pictures_come_back_from_disk(kind, tmp_path):
    from neuralmine.stores.findings import load_finding
    from neuralmine.types import Finding

    for view in CASES[kind]:
        finding = Finding(numbers={}, views=(view,), checks=(), summary="s")
        again = load_finding(finding.save(tmp_path / view.title)).views[0]
        assert again.text() == view.text()
        assert again.to_svg() == view.to_svg()
