"""A replay against sums worked out by hand."""

from __future__ import annotations

import math

import pytest
from tests.adapt.ladders import choices_of

from secateur.adapt.replay.simulate import simulate
from secateur.adapt.replay.speed_model import Roofline
from secateur.adapt.replay.traces import Moment, synthetic
from secateur_runtime.ladder_costs import Choices, Decision, Observation
from secateur_runtime.policies import Policy, make_policy

CHOICES = choices_of(["1.ffn", "2.attn"], [(4_000, 0), (1_000, 400)], [0.1, 0.5], [2.0, 2.1, 2.6])
SPEED = Roofline(1_000.0, 1e12, "test")


def moment(time: int, request: int, tokens: int, available: float) -> Moment:
    return Moment(time=time, request=request, batch=2, tokens=tokens, remaining=0, available=available)


def chosen(choices: Choices, *units: tuple[str, ...]) -> Policy:
    following = iter(units)

    def decide(seen: Observation) -> Decision:
        return Decision(next(following), None, 0)

    return decide


def test_figures_of_a_run() -> None:
    moments = [moment(0, 0, 10, 1e9), moment(1, 0, 14, 1e9), moment(2, 1, 10, 1e9), moment(3, 1, 12, 1e9)]
    run = simulate(
        CHOICES,
        "mine",
        chosen(CHOICES, (), ("1.ffn",), (), ("2.attn",)),
        moments,
        SPEED,
        {frozenset({"2.attn"}): 3.0},
    )
    # four tokens for each of two sequences at 2.1 nats, then two for each at 3.0, as was measured
    assert run.loss == pytest.approx((8 * 2.1 + 4 * 3.0) / 12)
    steps = 4 * (6_000 + 1_000 * 2 * 14) / 1_000 + 2 * (9_000 + 600 * 2 * 12) / 1_000
    prompts = 2 * 10_000 / 1_000
    assert run.tokens_per_second == pytest.approx(12 / (steps + prompts))
    assert (run.killed, run.changes, run.served) == (0, 3, 12)
    assert [one.need for one in run.happened][:2] == [10_000 + 20 * 1_000 + 140, 6_000 + 28 * 1_000 + 196]
    assert list(dict.fromkeys(one.gone for one in run.happened)) == [(), ("1.ffn",), ("2.attn",)]
    assert run.summary()["perplexity"] == pytest.approx(math.exp(run.loss))


def test_what_needs_more_than_there_is_is_killed_and_its_request_lost() -> None:
    moments = [
        moment(0, 0, 10, 1e9),
        moment(1, 0, 12, 1_000),
        moment(2, 0, 14, 1e9),
        moment(3, 1, 10, 1e9),
        moment(4, 1, 11, 1e9),
    ]
    run = simulate(CHOICES, "none", make_policy("none", CHOICES), moments, SPEED, {})
    assert [one.killed for one in run.happened] == [False, True, False, False]
    assert (run.killed, run.served) == (0.5, 2)


def test_attention_stays_out_until_the_request_ends_and_ffns_do_not() -> None:
    moments = [moment(0, 0, 10, 1e9), moment(1, 0, 11, 1e9), moment(2, 1, 10, 1e9)]
    run = simulate(CHOICES, "mine", chosen(CHOICES, ("1.ffn", "2.attn"), (), ()), moments, SPEED, {})
    assert [one.gone for one in run.happened] == [("1.ffn", "2.attn"), ("2.attn",), ()]


@pytest.mark.parametrize("name", ["greedy", "cost-aware", "knapsack"])
def test_policies_that_know_the_memory_are_not_killed_where_it_suffices(name: str) -> None:
    moments = synthetic("steady", CHOICES.whole, budget=0.8, requests=10, seed=0)
    assert simulate(CHOICES, name, make_policy(name, CHOICES), moments, SPEED, {}).killed == 0
    assert simulate(CHOICES, "none", make_policy("none", CHOICES), moments, SPEED, {}).killed > 0
