"""Bits under a budget: within it, near the best there is, and none where the least does not fit."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from secateur.allocate.bits import StorageOption, cheapest

SIZES = (3, 4, 5, 8)
COSTS = st.lists(st.floats(0.01, 10), min_size=4, max_size=4).map(lambda costs: sorted(costs, reverse=True))


def options(costs: list[float], scale: int) -> list[StorageOption]:
    return [StorageOption(scale * size, cost) for size, cost in zip(SIZES, costs, strict=True)]


@given(st.lists(st.tuples(COSTS, st.integers(1, 3)), min_size=1, max_size=5), st.integers(0, 120))
def test_near_the_best_choice(things: list[tuple[list[float], int]], budget: int) -> None:
    rows = {str(index): options(*thing) for index, thing in enumerate(things)}
    taken = cheapest(rows, budget)
    fitting = [
        choice
        for choice in product(range(4), repeat=len(rows))
        if sum(rows[str(i)][c].size for i, c in enumerate(choice)) <= budget
    ]
    if taken is None:
        assert not fitting
        return
    assert sum(rows[name][index].size for name, index in taken.items()) <= budget
    best = min(sum(rows[str(i)][c].cost for i, c in enumerate(choice)) for choice in fitting)
    cost = sum(rows[name][index].cost for name, index in taken.items())
    # what greed loses is at most what one thing may cost
    assert cost <= best + max(row[0].cost for row in rows.values())


def test_bytes_go_where_they_save_most() -> None:
    rows = {"sensitive": options([9.0, 4.0, 2.0, 0.1], 1), "dull": options([0.3, 0.2, 0.1, 0.0], 1)}
    assert cheapest(rows, 11) == {"sensitive": 3, "dull": 0}
    assert cheapest(rows, 16) == {"sensitive": 3, "dull": 3}
    assert cheapest(rows, 5) is None
