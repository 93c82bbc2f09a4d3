"""Every spread of a unit budget keeps the budget, the alignment and the least widths."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.allocate.units.problems import curves_of, oracle

from secateur.allocate.units import SPREADS, Curve, SpreadContext, parameters_gone
from secateur_runtime.errors import UsageError

KINDS = st.sampled_from([(12, 1, 1, 10), (30, 5, 6, 7), (3, 1, 1, 100), (33, 8, 9, 4), (64, 16, 32, 3)])
ROWS = st.lists(KINDS, min_size=1, max_size=5)


def context_of(curves: dict[str, Curve], seed: int = 0) -> SpreadContext:
    measure = oracle(curves)
    weights = {name: 1.0 + place for place, name in enumerate(curves)}
    return SpreadContext(
        influence=measure(dict.fromkeys(curves, 0)).influence, sensitivity=weights, measure=measure, seed=seed
    )


def total(curves: dict[str, Curve]) -> int:
    return sum(curve.size * curve.price for curve in curves.values())


@pytest.mark.parametrize("name", list(SPREADS))
@given(rows=ROWS, ratio=st.floats(0.02, 0.95), seed=st.integers(0, 3))
def test_keeps_budget_alignment_and_least(
    name: str, rows: list[tuple[int, int, int, int]], ratio: float, seed: int
) -> None:
    curves = curves_of(rows, seed)
    most = sum(curve.cuts[-1] * curve.price for curve in curves.values())
    spread = SPREADS[name].function
    if name != "uniform" and round(ratio * total(curves)) > most:
        with pytest.raises(UsageError, match="at most"):
            spread(curves, ratio, context_of(curves))
        return
    cuts = spread(curves, ratio, context_of(curves))
    assert cuts.keys() == curves.keys()
    for group, cut in cuts.items():
        stay = curves[group].size - cut
        assert stay % curves[group].align == 0
        assert curves[group].least <= stay <= curves[group].size
    if name != "uniform":
        assert parameters_gone(curves, cuts) >= round(ratio * total(curves))


@pytest.mark.parametrize("name", list(SPREADS))
def test_is_the_same_twice_and_does_not_overshoot(name: str) -> None:
    curves = curves_of([(32, 4, 4, 10)] * 6, 1)
    cuts = SPREADS[name].function(curves, 0.3, context_of(curves))
    assert cuts == SPREADS[name].function(curves, 0.3, context_of(curves))
    widths = 6 if name in ("uniform", "2ssp") else 1
    assert abs(parameters_gone(curves, cuts) - 0.3 * total(curves)) <= widths * 40


@pytest.mark.parametrize("name", list(SPREADS))
def test_a_width_that_cannot_be_is_refused(name: str) -> None:
    curves = curves_of([(32, 4, 4, 10)], 1) | {"9.ffn": Curve(tuple(range(8)), 10, tuple(range(7)), align=8)}
    with pytest.raises(UsageError, match=r"9.ffn has 7 units, which leaves no multiple of --align 8"):
        SPREADS[name].function(curves, 0.3, SpreadContext())


@pytest.mark.parametrize("name", list(SPREADS))
def test_is_documented(name: str) -> None:
    assert SPREADS[name].summary
