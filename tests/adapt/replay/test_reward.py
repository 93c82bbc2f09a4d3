"""Quality as a ratio of perplexities, and moments as observations, by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from tests.adapt.ladders import choices_of

from secateur.adapt.replay.reward import observed, quality, quality_left
from secateur.adapt.replay.traces import Moment

CHOICES = choices_of(["1.ffn", "2.attn"], [(4_000, 0), (1_000, 400)], [0.1, 0.5], [2.0, 2.1, 2.6])
MOMENT = Moment(time=0, request=0, batch=2, tokens=10, remaining=5, available=50_000)


def test_quality_is_a_ratio_of_perplexities_and_at_most_one() -> None:
    assert quality(CHOICES, 2.5) == pytest.approx(math.exp(2.0) / math.exp(2.5))
    assert quality(CHOICES, 1.5) == 1


def test_nothing_is_left_where_the_model_does_not_fit() -> None:
    gone = np.array([True, False])
    seen = observed(MOMENT, CHOICES, gone)
    need = 6_000 + 1_000 * 30 + 7 * 20
    assert quality_left(CHOICES, gone, seen) == pytest.approx(math.exp(-0.1))
    tight = observed(replace(MOMENT, available=need - 1), CHOICES, gone)
    assert quality_left(CHOICES, gone, tight) == 0


def test_an_observation_counts_the_removed_steps_as_the_level() -> None:
    seen = observed(MOMENT, CHOICES, np.array([True, True]), latency=0.5)
    assert (seen.level, seen.batch, seen.positions, seen.latency) == (2, 2, 30, 0.5)
    assert seen.kv_share == pytest.approx(600 * 20 / (600 * 20 + 5_000))
