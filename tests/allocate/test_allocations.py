"""Every way of spreading a budget keeps the budget."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.allocate.problems import allocated
from tests.conftest import Maker

from secateur.allocate import ALLOCATIONS, settle


@pytest.mark.parametrize("name", list(ALLOCATIONS))
@pytest.mark.parametrize("budget", [0.3, 0.5, 0.8])
def test_the_mean_over_all_weights_is_the_budget(tiny: Maker, name: str, budget: float) -> None:
    ratios, scores = allocated(tiny("llama"), ALLOCATIONS[name].function, budget)
    assert ratios.keys() == scores.keys()
    assert all(0 <= ratio < 1 for ratio in ratios.values())
    sizes = {tensor: score.numel() for tensor, score in scores.items()}
    mean = sum(ratios[tensor] * size for tensor, size in sizes.items()) / sum(sizes.values())
    assert mean == pytest.approx(budget, abs=1e-3)


@given(
    st.dictionaries(st.text(min_size=1), st.tuples(st.floats(0, 0.99), st.integers(1, 10**6)), min_size=1),
    st.floats(0, 0.95),
)
def test_settle_meets_any_budget(rows: dict[str, tuple[float, int]], budget: float) -> None:
    sizes = {name: size for name, (_, size) in rows.items()}
    settled = settle({name: ratio for name, (ratio, _) in rows.items()}, sizes, budget)
    assert sum(settled[name] * size for name, size in sizes.items()) / sum(sizes.values()) == pytest.approx(
        budget, abs=1e-6
    )
