from __future__ import annotations

import pytest

from secateur.allocate.units import Curve
from secateur.allocate.units.balance import balance, lower, settle_cuts


def test_steps_go_in_turn_to_those_furthest_below_their_wish() -> None:
    curves = {name: Curve((0.0,) * 41, 1, align=4) for name in "abc"}
    # 7.6, 6.4 and 5.2 are wanted, 4 each is the start
    wanted = {"a": 0.19, "b": 0.16, "c": 0.13}
    assert settle_cuts(curves, wanted, 12) == {"a": 4, "b": 4, "c": 4}
    assert settle_cuts(curves, wanted, 13) == {"a": 8, "b": 4, "c": 4}
    assert settle_cuts(curves, wanted, 20) == {"a": 8, "b": 8, "c": 4}
    assert settle_cuts(curves, wanted, 24) == {"a": 8, "b": 8, "c": 8}
    assert settle_cuts(curves, wanted, 25) == {"a": 12, "b": 8, "c": 8}


def test_a_group_at_its_limit_takes_no_more() -> None:
    curves = {"a": Curve((0.0,) * 41, 1, least=38), "b": Curve((0.0,) * 41, 1)}
    assert settle_cuts(curves, {"a": 0.9, "b": 0.0}, 20) == {"a": 2, "b": 18}


def test_lower_is_the_next_allowed_cut() -> None:
    curve = Curve((0.0,) * 31, 1, align=8)
    assert list(curve.cuts) == [6, 14, 22]
    assert [lower(curve, wanted) for wanted in (0, 6, 13.9, 14, 99)] == [6, 6, 6, 14, 22]


def test_balance_meets_the_budget_within_the_limits() -> None:
    curves = {"a": Curve((0.0,) * 101, 1, least=90), "b": Curve((0.0,) * 101, 3)}
    shares = balance(curves, lambda x: {"a": x, "b": x / 2}, 100, 0, 2)
    assert shares == pytest.approx({"a": 0.1, "b": 0.3})
