"""The best single plan against every set of steps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.adapt.ladders import every_mask, ladders, observations

from secateur.adapt.replay.static_policy import always, static_plan


@given(st.data())
def test_no_set_that_fits_everywhere_is_cheaper_and_no_level_is_better(data: st.DataObject) -> None:
    choices = data.draw(ladders())
    moments = [data.draw(observations(choices)) for _ in range(3)]
    found = static_plan(choices, moments)
    mask = choices.mask(found.units)
    fitting = [
        other
        for other in every_mask(choices)
        if all(choices.need(other, seen) <= seen.available for seen in moments)
    ]
    levels = [
        level
        for level in range(len(choices.units) + 1)
        if all(choices.needs(seen)[level] <= seen.available for seen in moments)
    ]
    if fitting:
        assert all(choices.need(mask, seen) <= seen.available + 1e-6 for seen in moments)
        assert choices.loss(mask) <= min([choices.losses[level] for level in levels], default=float("inf"))
        cheapest = min(fitting, key=lambda other: float(choices.prices @ other))
        assert found.level in levels or choices.prices @ mask == pytest.approx(
            float(choices.prices @ cheapest), abs=1e-9
        )
    else:
        assert mask.all()
    assert [always(choices, found)(seen).units for seen in moments] == [found.units] * 3
