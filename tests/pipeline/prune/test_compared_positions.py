"""Positions are spread evenly, and as many variants go together as fit the memory."""

from __future__ import annotations

from itertools import pairwise

import pytest

from secateur.pipeline.prune.compared_positions import (
    FEW_POSITIONS,
    MEMORY,
    POSITIONS,
    spread_positions,
    variants_at_once,
)


@pytest.mark.parametrize("most", [FEW_POSITIONS, POSITIONS])
@pytest.mark.parametrize("count", [1, 2, 255, 256, 257, 1024, 5000])
def test_positions_are_spread_from_the_first_to_the_last(count: int, most: int) -> None:
    found = spread_positions(count, most).tolist()
    assert len(set(found)) == len(found) == min(most, count)
    assert found == sorted(found)
    assert (found[0], found[-1]) == (0, count - 1 if len(found) > 1 else 0)
    # Steps of an even spread differ by one at most.
    steps = {after - before for before, after in pairwise(found)}
    assert max(steps, default=1) - min(steps, default=1) <= 1


def test_few_positions_are_all_taken() -> None:
    assert spread_positions(5).tolist() == [0, 1, 2, 3, 4]
    assert spread_positions(9, 3).tolist() == [0, 4, 8]


def test_variants_that_fit_the_memory_go_together() -> None:
    assert variants_at_once(MEMORY) == 1
    assert variants_at_once(MEMORY // 3) == 3
    assert variants_at_once(MEMORY // 3 + 1) == 2
    assert variants_at_once(10 * MEMORY) == 1
