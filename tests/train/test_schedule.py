"""Learning rates: known values at the ends and in between."""

from __future__ import annotations

from itertools import pairwise

import pytest

from secateur.train.schedule import SCHEDULES, Schedule, rate


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_rises_to_the_top_and_falls_to_the_floor(schedule: Schedule) -> None:
    rates = [rate(schedule, step, 100, 10, floor=0.1) for step in range(101)]
    assert rates[0] == pytest.approx(1 / 11)
    assert max(rates) == rates[10] == 1
    assert rates[100] == pytest.approx(0.1)
    assert all(later <= earlier for earlier, later in pairwise(rates[10:]))


def test_cosine_is_halfway_down_in_the_middle_and_wsd_has_not_begun() -> None:
    assert rate("cosine", 55, 100, 10) == pytest.approx(0.5)
    assert rate("wsd", 80, 100, 10) == 1
    assert rate("wsd", 90, 100, 10) == pytest.approx(0.5)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_runs_shorter_than_their_warmup(schedule: Schedule) -> None:
    assert [rate(schedule, step, 2, 5) for step in range(2)] == pytest.approx([1 / 6, 2 / 6])
