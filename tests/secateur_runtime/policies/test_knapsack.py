"""The knapsack policy against every set of steps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.adapt.ladders import choices_of, every_mask, ladders, observations

from secateur_runtime.ladder_costs import Choices
from secateur_runtime.policies import make_policy
from secateur_runtime.policies.knapsack import combine


def price(choices: Choices, units: tuple[str, ...]) -> float:
    return float(choices.prices @ choices.mask(units))


@given(st.data())
def test_knapsack_is_the_cheapest_of_all_sets(data: st.DataObject) -> None:
    choices = data.draw(ladders())
    seen = data.draw(observations(choices))
    decision = make_policy("knapsack", choices)(seen)
    costs = [
        float(choices.prices @ mask)
        for mask in every_mask(choices)
        if choices.need(mask, seen) <= seen.available
    ]
    if costs:
        assert price(choices, decision.units) == pytest.approx(min(costs), abs=1e-9)


def test_sizes_are_rounded_down_where_there_are_too_many_combinations() -> None:
    random = np.random.default_rng(0)
    sizes, prices = random.integers(1_000, 2_000, 14), random.random(14)
    choices = choices_of(
        [f"{block}.ffn" for block in range(14)], [(int(size), 0) for size in sizes], list(prices), [1] * 15
    )
    exact, rounded = combine(choices, choices.chains), combine(choices, choices.chains, most=20)
    assert len(rounded.prices) <= 20
    assert len(rounded.prices) < len(exact.prices)
    for index in range(len(rounded.prices)):
        assert rounded.weights[index] <= sum(sizes[rounded.steps(index)])
