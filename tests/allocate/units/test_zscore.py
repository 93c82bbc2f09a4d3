from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.allocate.units.problems import curves_of

from secateur.allocate.units import Curve, SpreadContext
from secateur.allocate.units.zscore import zscore


@given(st.integers(0, 100), st.floats(0.05, 0.6))
def test_equals_one_threshold_over_all_standardised_scores(seed: int, ratio: float) -> None:
    curves = curves_of([(20, 1, 1, 7), (12, 1, 1, 7), (5, 1, 1, 40)], seed)
    rows = []
    for name, curve in curves.items():
        scores = np.array(curve.scores)
        rows += [(z, name, curve.price) for z in (scores - scores.mean()) / scores.std()]
    rows.sort()
    budget = round(ratio * (32 * 7 + 5 * 40))
    expected, removed = dict.fromkeys(curves, 0), 0
    for _, name, price in rows:
        if removed >= budget:
            break
        # at least one unit stays
        if expected[name] < curves[name].size - 1:
            expected[name] += 1
            removed += price
    assert zscore(curves, ratio, SpreadContext()) == expected


def test_the_unit_of_scores_does_not_matter() -> None:
    curves = curves_of([(20, 2, 2, 7), (12, 2, 2, 7)], 4)
    scaled = {
        name: Curve(curve.errors, curve.price, tuple(9 * s + 3 for s in curve.scores), 2, 2)
        for name, curve in curves.items()
    }
    once = curves | {"0.ffn": scaled["0.ffn"]}
    assert zscore(once, 0.4, SpreadContext()) == zscore(curves, 0.4, SpreadContext())


def test_a_group_with_equal_scores_is_average() -> None:
    curves = {"flat": Curve((0.0,) * 5, 1, (2.0,) * 4), "steep": Curve((0.0,) * 5, 1, (1.0, 2.0, 8.0, 9.0))}
    assert zscore(curves, 0.25, SpreadContext()) == {"flat": 0, "steep": 2}
    assert zscore(curves, 0.5, SpreadContext()) == pytest.approx({"flat": 2, "steep": 2})
