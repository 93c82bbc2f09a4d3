from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.allocate.units.problems import curves_of, oracle

from secateur.allocate.units import Curve, MeasuredUnits, SpreadContext, parameters_gone
from secateur.allocate.units.evolve import _Mutation, evolve
from secateur.allocate.units.knapsack import knapsack


def test_finds_what_errors_alone_do_not_tell() -> None:
    """The divergence weighs the groups otherwise than the errors.

    With the weights in the errors the knapsack is optimal.
    """
    curves = curves_of([(32, 2, 2, 10)] * 6, 2)
    weights = {name: 4.0**place for place, name in enumerate(curves)}
    measure = oracle(curves, weights)
    context = SpreadContext(measure=measure, seed=5)
    start = measure(knapsack(curves, 0.3, context)).kl
    weighed = {
        name: replace(curve, errors=tuple(weights[name] * error for error in curve.errors))
        for name, curve in curves.items()
    }
    best = measure(knapsack(weighed, 0.3, context)).kl
    found = evolve(curves, 0.3, context, generations=60, offspring=8)
    assert measure(found).kl <= best + 0.1 * (start - best)
    assert parameters_gone(curves, found) >= round(0.3 * 6 * 320)


def test_measures_no_cuts_twice_and_depends_on_the_seed_alone() -> None:
    curves = curves_of([(16, 2, 2, 10)] * 4, 2)
    measure = oracle(curves, {name: 3.0**place for place, name in enumerate(curves)})
    asked: list[tuple[int, ...]] = []

    def count(cuts: Mapping[str, int]) -> MeasuredUnits:
        asked.append(tuple(cuts.values()))
        return measure(cuts)

    first = evolve(curves, 0.3, SpreadContext(measure=count, seed=1))
    assert len(set(asked)) == len(asked)
    before = list(asked)
    asked.clear()
    assert evolve(curves, 0.3, SpreadContext(measure=count, seed=1)) == first
    assert asked == before
    asked.clear()
    evolve(curves, 0.3, SpreadContext(measure=count, seed=2))
    assert asked != before


@given(st.integers(0, 50), st.floats(0.1, 0.7))
def test_a_child_spends_the_budget_and_no_step_more(seed: int, ratio: float) -> None:
    curves = curves_of([(32, 4, 4, 10), (32, 4, 4, 10), (3, 1, 1, 100), (30, 3, 6, 8)], seed)
    budget = round(ratio * sum(curve.size * curve.price for curve in curves.values()))
    if budget > sum(curve.cuts[-1] * curve.price for curve in curves.values()):
        return
    cuts = knapsack(curves, ratio, SpreadContext())
    mutation = _Mutation(curves, budget, random.Random(seed))
    for _ in range(10):
        cuts = mutation.child(cuts)
        removed = parameters_gone(curves, cuts)
        assert removed >= budget
        assert all(cut in curves[name].cuts for name, cut in cuts.items())
        spare = [
            name
            for name, cut in cuts.items()
            if cut > curves[name].cuts[0] and curves[name].align * curves[name].price <= removed - budget
        ]
        assert not spare, "a step could be given back"


def test_needs_a_measure() -> None:
    with pytest.raises(ValueError, match=r"context\.measure"):
        evolve({"a": Curve((0.0, 1.0, 2.0), 1)}, 0.5, SpreadContext())
