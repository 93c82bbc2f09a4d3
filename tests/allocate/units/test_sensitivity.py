from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.allocate.units.problems import curves_of

from secateur.allocate.units import SpreadContext, parameters_gone
from secateur.allocate.units.knapsack import knapsack
from secateur.allocate.units.sensitivity import sensitivity


@given(st.integers(0, 100), st.integers(1, 18))
def test_no_moved_unit_lowers_the_weighed_error(seed: int, units: int) -> None:
    """Errors are convex here, so a cut is best when no unit can be exchanged for one of another group."""
    curves = curves_of([(8, 1, 1, 5)] * 3, seed)
    weights = {name: 1.0 + 3 * place for place, name in enumerate(curves)}
    cuts = sensitivity(curves, units / 24, SpreadContext(sensitivity=weights))
    assert parameters_gone(curves, cuts) >= 5 * units

    def cost(changed: dict[str, int]) -> float:
        return sum(weights[name] * curves[name].errors[cut] for name, cut in changed.items())

    for more in curves:
        for less in curves:
            moved = cuts | {more: cuts[more] + 1, less: cuts[less] - 1} if more != less else cuts
            if moved[more] in curves[more].cuts and moved[less] in curves[less].cuts:
                assert cost(cuts) <= cost(moved) + 1e-9


def test_equal_sensitivities_make_a_knapsack() -> None:
    curves = curves_of([(12, 2, 2, 3), (8, 1, 1, 7)], 3)
    assert sensitivity(curves, 0.3, SpreadContext(sensitivity=dict.fromkeys(curves, 2.5))) == knapsack(
        curves, 0.3, SpreadContext()
    )


def test_every_group_needs_a_sensitivity() -> None:
    with pytest.raises(KeyError):
        sensitivity(curves_of([(8, 1, 1, 5)], 0), 0.2, SpreadContext())
