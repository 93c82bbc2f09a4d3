"""The cost-aware policy: cheapest per byte at this batch and length."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tests.adapt.ladders import choices_of, ladders, observations

from secateur_runtime.ladder_costs import Observation
from secateur_runtime.policies import make_policy


@given(st.data())
def test_cost_aware_takes_nothing_that_it_need_not(data: st.DataObject) -> None:
    choices = data.draw(ladders())
    seen = data.draw(observations(choices))
    decision = make_policy("cost-aware", choices)(seen)
    mask, frees = choices.mask(decision.units), choices.frees(seen)
    last = [
        index
        for index in np.flatnonzero(mask)
        if not any(choices.before[other] == index for other in np.flatnonzero(mask))
    ]
    if decision.need <= seen.available:
        dearest = max(last, key=lambda index: choices.prices[index], default=None)
        assert dearest is None or decision.need + frees[dearest] > seen.available


def test_cost_aware_takes_attention_from_long_batches_and_ffns_from_short_ones() -> None:
    choices = choices_of(["1.attn", "2.ffn"], [(100, 100), (300, 0)], [0.3, 0.3], [2, 2.3, 2.6])
    decide = make_policy("cost-aware", choices)
    for tokens, units in ((1, ("2.ffn",)), (50, ("1.attn",))):
        whole = choices.missing(Observation(batch=1, tokens=tokens, available=0))
        assert decide(Observation(batch=1, tokens=tokens, available=whole - 1)).units == units


def test_cost_aware_looks_past_a_dear_step_to_a_cheap_one_behind_it() -> None:
    choices = choices_of(
        ["1.ffn:64", "2.ffn", "1.ffn"], [(10, 0), (1000, 0), (1000, 0)], [0.4, 0.6, 0.0], [2] * 4
    )
    whole = choices.missing(Observation(batch=1, tokens=1, available=0))
    assert make_policy("cost-aware", choices)(
        Observation(batch=1, tokens=1, available=whole - 900)
    ).units == ("1.ffn:64", "1.ffn")
