"""The policy of a trained network, against the network asked step by step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.adapt.ladders import every_mask, ladders, observations
from tests.secateur_runtime.policies.test_q_network import network_for

from secateur_runtime.policies.dqn import follow
from secateur_runtime.policies.observation_features import features, still_missing
from secateur_runtime.policies.q_network import Formulation


@given(st.data())
def test_a_decision_by_units_is_that_of_the_whole_network_asked_step_by_step(data: st.DataObject) -> None:
    choices = data.draw(ladders())
    seen = data.draw(observations(choices))
    network = network_for(choices, "units", seed=data.draw(st.integers(0, 99)))
    gone = np.zeros(len(choices.units), dtype=bool)
    while choices.need(gone, seen) > seen.available and not gone.all():
        worth = network(np.concatenate([features(choices, seen), still_missing(choices, seen, gone)]))
        possible = [
            index
            for index, before in enumerate(choices.before)
            if not gone[index] and (before is None or gone[before])
        ]
        gone[max(possible, key=lambda index: worth[index])] = True
    assert choices.mask(follow(choices, network)(seen).units).tolist() == gone.tolist()


@pytest.mark.parametrize("formulation", ["units", "level"])
@given(data=st.data())
def test_even_an_untrained_network_fits_if_anything_does(
    formulation: Formulation, data: st.DataObject
) -> None:
    choices = data.draw(ladders())
    seen = data.draw(observations(choices))
    decision = follow(choices, network_for(choices, formulation))(seen)
    assert any(choices.mask(decision.units).tolist() == mask.tolist() for mask in every_mask(choices))
    assert decision.need <= seen.available * (1 + 1e-12) or choices.needs(seen).min() > seen.available
    if formulation == "level":
        assert decision.level is not None
