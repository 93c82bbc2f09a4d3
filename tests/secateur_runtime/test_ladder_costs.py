"""The arithmetic of a ladder against sums written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.adapt.ladders import choices_of, every_mask, ladders, observations

from secateur_runtime.errors import UsageError
from secateur_runtime.ladder_costs import Choices, Observation

TWO = choices_of(["1.attn", "2.ffn"], [(100, 10), (300, 0)], [0.5, 0.1], [2.0, 2.4, 3.0])


def test_needs_are_weights_cache_and_activations() -> None:
    seen = Observation(batch=2, tokens=3, remaining=4, available=0)
    assert TWO.needs(seen).tolist() == [
        10_000 + 14 * 1_000 + 42,
        9_900 + 14 * 990 + 42,
        9_600 + 14 * 990 + 42,
    ]
    assert TWO.frees(seen).tolist() == [100 + 14 * 10, 300]


@given(st.data())
def test_a_level_and_its_mask_need_the_same(data: st.DataObject) -> None:
    choices = data.draw(ladders())
    seen = data.draw(observations(choices))
    for level, need in enumerate(choices.needs(seen)):
        mask = np.arange(len(choices.units)) < level
        assert choices.need(mask, seen) == pytest.approx(need)
        assert choices.level(level, seen).need == pytest.approx(need)
        assert choices.loss(mask) == choices.losses[level]
        assert choices.decide(range(level), seen).level == level


@given(ladders())
def test_the_loss_of_other_sets_lies_within_the_ladders(choices: Choices) -> None:
    for mask in every_mask(choices):
        assert choices.losses.min() <= choices.loss(mask) <= choices.losses.max()


def test_the_loss_of_another_set_is_that_of_the_ladder_at_the_same_price() -> None:
    assert choices_of(["1.attn", "2.ffn"], [(1, 1), (1, 0)], [0.2, 0.1], [2.0, 2.4, 3.0]).loss(
        np.array([False, True])
    ) == pytest.approx(2.2)


def test_a_step_needs_the_ones_before_it_in_its_half() -> None:
    choices = choices_of(["1.ffn:64", "1.attn", "1.ffn"], [(1, 0)] * 3, [0] * 3, [1] * 4)
    assert choices.before == (None, None, 0)
    assert choices.chains == ((0, 2), (1,))
    assert choices.mask(["1.ffn", "1.ffn:64"]).tolist() == [True, False, True]
    with pytest.raises(UsageError, match=r"1\.ffn cannot be removed without 1\.ffn:64"):
        choices.mask(["1.ffn"])
    with pytest.raises(UsageError, match=r"no step '9\.attn'"):
        choices.mask(["9.attn"])


def test_figures_of_another_ladder_are_refused() -> None:
    with pytest.raises(UsageError, match="a ladder of 2 steps needs 3 figures"):
        choices_of(["1.attn", "2.ffn"], [(1, 1)], [0.1, 0.1], [1, 2, 3])
    with pytest.raises(UsageError, match="not negative"):
        choices_of(["1.attn"], [(1, 1)], [-0.1], [1, 2])
