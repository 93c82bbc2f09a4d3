"""The policy of a trained network, against the network asked step by step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.adapt.ladders import every_mask, ladders, observations
from tests.secateur_runtime.policies.test_q_network import CHOICES, network_for

from secateur_runtime.ladder_costs import Observation
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


def test_the_level_worth_most_is_taken_unless_it_does_not_fit() -> None:
    choices = CHOICES
    network = network_for(choices, "level")
    (weight, bias), (last, _) = network.layers
    preferring = replace(
        network, layers=((weight, bias), (last * 0, np.array([1, 4, 2, 3], dtype=np.float32)))
    )
    needs = choices.needs(Observation(batch=1, tokens=1, available=0))
    for available, level in ((needs[0], 1), (needs[1] - 1, 3), (needs[3] - 1, 3)):
        seen = Observation(batch=1, tokens=1, available=float(available))
        assert follow(choices, preferring)(seen).level == level
