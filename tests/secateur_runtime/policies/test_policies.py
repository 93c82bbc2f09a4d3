"""Every policy against every set of steps of small ladders."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.adapt.ladders import choices_of, every_mask, ladders, observations

from secateur_runtime.errors import UsageError
from secateur_runtime.ladder_costs import Choices, Observation
from secateur_runtime.policies import POLICIES, make_policy
from secateur_runtime.policies.knapsack import combine

SURE = ["cost-aware", "greedy", "knapsack"]


def price(choices: Choices, units: tuple[str, ...]) -> float:
    return float(choices.prices @ choices.mask(units))


@pytest.mark.parametrize("name", [name for name in POLICIES if "file" not in POLICIES[name].needs])
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


@pytest.mark.parametrize("name", SURE)
@given(data=st.data())
def test_what_is_decided_fits_if_anything_does(name: str, data: st.DataObject) -> None:
    choices = data.draw(ladders())
    seen = data.draw(observations(choices))
    decision = make_policy(name, choices)(seen)
    if choices.needs(seen).min() <= seen.available:
        assert decision.need <= seen.available * (1 + 1e-12)
    else:
        assert len(decision.units) == len(choices.units)


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


def test_threshold_goes_down_one_stage_and_back() -> None:
    choices = choices_of(
        [f"{block}.attn" for block in range(16)], [(100, 10)] * 16, [0.1] * 16, list(range(17))
    )
    decide = make_policy("threshold", choices)

    def level(share: float, now: int) -> int | None:
        whole = float(choices.needs(Observation(batch=1, tokens=10, available=0))[now])
        return decide(Observation(batch=1, tokens=10, available=whole / share, level=now)).level

    assert [level(0.96, 4), level(0.90, 4), level(0.70, 4), level(0.96, 16), level(0.1, 0)] == [
        6,
        4,
        2,
        16,
        0,
    ]


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


def test_an_unknown_policy_is_named_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown policy 'gredy' \(did you mean greedy\?\)"):
        make_policy("gredy", choices_of(["1.attn"], [(1, 1)], [0], [1, 1]))
