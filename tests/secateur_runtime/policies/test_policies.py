"""Every policy against every set of steps of small ladders."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.adapt.ladders import choices_of, ladders, observations

from secateur_runtime.errors import UsageError
from secateur_runtime.policies import POLICIES, make_policy, untrained


def test_which_policies_need_no_file_and_which_of_them_always_fit() -> None:
    assert set(POLICIES) - set(untrained()) == {"dqn"}
    assert set(untrained()) - set(untrained(fits=True)) == {"none", "threshold"}


@pytest.mark.parametrize("name", untrained())
@given(data=st.data())
def test_a_decision_can_be_carried_out(name: str, data: st.DataObject) -> None:
    choices = data.draw(ladders())
    seen = data.draw(observations(choices))
    decision = make_policy(name, choices)(seen)
    mask = choices.mask(decision.units)
    assert decision.need == pytest.approx(choices.need(mask, seen))
    assert decision.level is not None or "levels" not in POLICIES[name].needs
    if decision.level is not None:
        assert decision.units == choices.units[: decision.level]


@pytest.mark.parametrize("name", untrained(fits=True))
@given(data=st.data())
def test_what_is_decided_fits_if_anything_does(name: str, data: st.DataObject) -> None:
    choices = data.draw(ladders())
    seen = data.draw(observations(choices))
    decision = make_policy(name, choices)(seen)
    if choices.needs(seen).min() <= seen.available:
        assert decision.need <= seen.available * (1 + 1e-12)
    else:
        assert len(decision.units) == len(choices.units)


def test_an_unknown_policy_is_named_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown policy 'gredy' \(did you mean greedy\?\)"):
        make_policy("gredy", choices_of(["1.attn"], [(1, 1)], [0], [1, 1]))
