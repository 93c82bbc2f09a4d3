"""The policy that never removes anything."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.adapt.ladders import ladders, observations

from secateur_runtime.policies import make_policy


@given(st.data())
def test_the_whole_model_is_kept_even_if_it_does_not_fit(data: st.DataObject) -> None:
    choices = data.draw(ladders())
    seen = data.draw(observations(choices))
    decision = make_policy("none", choices)(seen)
    assert (decision.units, decision.level) == ((), 0)
    assert decision.need == choices.needs(seen)[0]
