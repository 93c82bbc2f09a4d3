"""The measure of LaCo against its formula in float64."""

from __future__ import annotations

import pytest
import torch
from tests.criteria.depth.problems import FIRST, SECOND, TARGETS, cosine

from secateur.criteria.depth.laco import laco


def test_it_is_its_formula() -> None:
    expected = [1 - cosine(a, b) for a, b in zip(FIRST, SECOND, strict=True)]
    assert laco(FIRST, SECOND, TARGETS).tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_it_is_zero_for_the_same_direction_and_two_for_the_opposite() -> None:
    torch.testing.assert_close(laco(FIRST, 3 * FIRST, TARGETS), torch.zeros(7), rtol=0, atol=1e-6)
    torch.testing.assert_close(laco(FIRST, -FIRST, TARGETS), torch.full((7,), 2.0), rtol=0, atol=1e-6)
