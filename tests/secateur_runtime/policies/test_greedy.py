"""The greedy policy against every level."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.adapt.ladders import ladders, observations

from secateur_runtime.policies import make_policy


@given(st.data())
def test_greedy_takes_the_best_level(data: st.DataObject) -> None:
    choices = data.draw(ladders())
    seen = data.draw(observations(choices))
    decision = make_policy("greedy", choices)(seen)
    fitting = [
        loss for loss, need in zip(choices.losses, choices.needs(seen), strict=True) if need <= seen.available
    ]
    if fitting:
        assert decision.level is not None
        assert choices.losses[decision.level] == min(fitting)
