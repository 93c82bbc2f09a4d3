from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st
from tests.allocate.units.problems import curves_of

from secateur.allocate.units import Curve, SpreadContext, parameters_gone
from secateur.allocate.units.knapsack import knapsack


def best(curves: dict[str, Curve], budget: int) -> float:
    """The least error of all cuts that meet the budget, by trying them all."""
    choices = itertools.product(*(curve.cuts for curve in curves.values()))
    found = [dict(zip(curves, choice, strict=True)) for choice in choices]
    return min(
        sum(curves[name].errors[cut] for name, cut in cuts.items())
        for cuts in found
        if parameters_gone(curves, cuts) >= budget
    )


@given(st.integers(0, 200), st.integers(1, 18))
def test_equals_trying_everything_where_errors_are_convex(seed: int, units: int) -> None:
    curves = curves_of([(8, 1, 1, 5)] * 3, seed)
    ratio = units / 24
    cuts = knapsack(curves, ratio, SpreadContext())
    found = sum(curves[name].errors[cut] for name, cut in cuts.items())
    assert found <= best(curves, round(ratio * 120)) * (1 + 1e-9)


def test_looks_past_a_dear_first_step() -> None:
    """The first unit of `a` costs more than that of `b`, but four of `a` cost less than four of `b`."""
    curves = {"a": Curve((0.0, 1.1, 1.2, 1.3, 1.4, 9.0), 1), "b": Curve((0.0, 1.0, 2.0, 3.0, 4.0, 9.0), 1)}
    assert knapsack(curves, 0.4, SpreadContext()) == {"a": 4, "b": 0}


def test_an_infinite_error_is_a_last_resort() -> None:
    curves = {"a": Curve((0.0, 1.0, float("inf"), float("inf")), 1), "b": Curve((0.0, 5.0, 50.0, 500.0), 1)}
    assert knapsack(curves, 0.5, SpreadContext()) == {"a": 1, "b": 2}
    assert knapsack(curves, 0.66, SpreadContext()) == {"a": 2, "b": 2}
