from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("fastapi", reason="pip install 'secateur[serve]'")

from secateur_runtime.server.engine.sampling import Sampler, Sampling, _within, likeliest, told

LOGITS = np.log(np.array([0.5, 0.25, 0.15, 0.1], dtype=np.float32))
DRAWS = 4000


def _shares(sampling: Sampling) -> list[float]:
    sampler = Sampler(sampling)
    counts = Counter(sampler.choose(LOGITS).token for _ in range(DRAWS))
    return [counts[token] / DRAWS for token in range(4)]


def test_draws_follow_the_distribution() -> None:
    assert _shares(Sampling(seed=0)) == pytest.approx([0.5, 0.25, 0.15, 0.1], abs=0.03)
    squared = np.array([0.25, 0.0625, 0.0225, 0.01])
    assert _shares(Sampling(seed=0, temperature=0.5)) == pytest.approx(
        list(squared / squared.sum()), abs=0.03
    )


def test_top_p_keeps_the_token_that_crosses_the_mark() -> None:
    assert _shares(Sampling(seed=0, top_p=0.6)) == pytest.approx([2 / 3, 1 / 3, 0, 0], abs=0.03)
    assert _shares(Sampling(seed=0, top_p=0.01)) == [1, 0, 0, 0]
    assert _shares(Sampling(seed=0, top_p=0.9999)) == pytest.approx([0.5, 0.25, 0.15, 0.1], abs=0.03)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 3000),
    st.integers(0, 3100),
    st.sampled_from([0.3, 3.0, 1e3]),
    st.floats(0.01, 0.999),
)
def test_the_likeliest_are_those_of_a_whole_sort(
    seed: int, size: int, count: int, spread: float, share: float
) -> None:
    """Equal ones too, of which there are many among rounded values."""
    below = np.round(np.random.default_rng(seed).exponential(spread, size), 1)
    values = np.exp(below.min() - below)
    order = np.argsort(-values, kind="stable")
    assert likeliest(values, count).tolist() == order[:count].tolist()
    shares = np.cumsum(values[order]) / values.sum()
    assert _within(values, share).tolist() == order[: int(np.searchsorted(shares, share)) + 1].tolist()


def test_penalties_and_bias() -> None:
    sampler = Sampler(Sampling(temperature=0, presence=0.5, frequency=0.4))
    # 0.69 nats lie between the first and the second token.
    assert [sampler.choose(LOGITS).token for _ in range(3)] == [0, 1, 0]
    assert Sampler(Sampling(temperature=0, bias={3: 10.0})).choose(LOGITS).token == 3


def test_the_logits_stay_as_they_are() -> None:
    before = LOGITS.copy()
    Sampler(Sampling(bias={1: 3.0}, presence=1.0)).choose(LOGITS)
    assert (before == LOGITS).all()


def test_told() -> None:
    chosen = told(LOGITS + 7, 2, 2)
    assert chosen.logprob == pytest.approx(np.log(0.15), abs=1e-6)
    assert [token for token, _ in chosen.top] == [0, 1]
    assert np.exp([logprob for _, logprob in chosen.top]) == pytest.approx([0.5, 0.25], abs=1e-6)
