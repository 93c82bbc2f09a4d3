"""Divergence of predictions against its formula in float64."""

from __future__ import annotations

import math

import pytest
import torch
from tests.criteria.depth.problems import FIRST, SECOND, TARGETS, log_probability

from secateur.criteria.depth.kl import kl


def test_it_is_its_formula() -> None:
    expected = [
        sum(
            math.exp(log_probability(a, k)) * (log_probability(a, k) - log_probability(b, k))
            for k in range(11)
        )
        for a, b in zip(FIRST, SECOND, strict=True)
    ]
    assert kl(FIRST, SECOND, TARGETS).tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_it_is_zero_for_equal_predictions() -> None:
    torch.testing.assert_close(kl(FIRST, FIRST + 5, TARGETS), torch.zeros(7), rtol=0, atol=1e-5)
