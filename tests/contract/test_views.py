"""What every kind of view promises: text, the same picture twice, and words for what does not fit."""

import numpy as np
import pytest

from neuralmine import views
from neuralmine.errors import UsageError
from neuralmine.wire import pack

CASES = {
    "grid": [views.Grid("t", np.array([[1.0, -2.0]])), views.Grid("zeros", np.zeros((3, 3)), "magnitude"), views.Grid("one", np.ones((1, 1)), "ink", 1.0)],
    "bars": [views.Bars("t", ("a", "b" * 60), np.array([0.5, -1.0]), 0, signed=True), views.Bars("zeros", ("a",), np.zeros(1))],
    "lines": [views.Lines("t", np.arange(3.0), {"a": np.array([1.0, np.nan, 2.0])}, "x", "y", 1.0), views.Lines("point", np.zeros(1), {"a": np.zeros(1)})],
    "table": [views.Table("t", ("a", "b"), (("x", 1.0), (None, 2)), ("sum", 3.0)), views.Table("none", ("a",), ())],
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
])  # fmt: skip
def test_what_does_not_fit_is_refused(make):
    with pytest.raises(UsageError):
        make()
