"""The inputs of a trained policy, computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from tests.adapt.ladders import choices_of

from secateur_runtime.ladder_costs import Observation
from secateur_runtime.policies.observation_features import NAMES, features, still_missing

CHOICES = choices_of(["1.ffn", "2.attn"], [(4_000, 0), (1_000, 400)], [0.1, 0.5], [2.0, 2.1, 2.6])
SEEN = Observation(batch=4, tokens=8, remaining=3, available=20_000, kv_share=0.25, latency=4e-4, level=1)
WHOLE = 10_000 + 1_000 * 4 * 11 + 7 * 4 * 8


def test_features_are_logarithms_and_shares() -> None:
    wanted = {
        "log2 batch": 2,
        "log2 tokens": 3,
        "log2 remaining": 2,
        "available": 20_000 / WHOLE,
        "kv share": 0.25,
        "log2 latency": 2,
        "level": 0.5,
        "missing": 1 - 20_000 / WHOLE,
        "cache of need": 44_000 / WHOLE,
    }
    assert tuple(wanted) == NAMES
    found = features(CHOICES, SEEN)
    assert found.dtype == np.float32
    assert found.tolist() == pytest.approx(list(wanted.values()))


def test_an_unknown_latency_is_zero() -> None:
    unknown = Observation(batch=1, tokens=1, available=1)
    assert features(CHOICES, unknown)[NAMES.index("log2 latency")] == 0


def test_what_is_still_missing_falls_by_what_the_steps_free() -> None:
    missing = WHOLE - 20_000
    for mask, freed in (([False, False], 0), ([True, False], 4_000), ([True, True], 5_000 + 400 * 44)):
        found = still_missing(CHOICES, SEEN, np.array(mask))
        assert found.tolist() == pytest.approx([(missing - freed) / WHOLE, *map(float, mask)])
