"""Angular distance against its formula in float64."""

from __future__ import annotations

import math

import pytest
import torch
from tests.criteria.depth.problems import FIRST, SECOND, TARGETS, cosine

from secateur.criteria.depth.angular import angular


def test_it_is_its_formula() -> None:
    expected = [math.acos(cosine(a, b)) / math.pi for a, b in zip(FIRST, SECOND, strict=True)]
    assert angular(FIRST, SECOND, TARGETS).tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_right_angle_is_a_half_and_rounding_beyond_one_is_no_nan() -> None:
    axes = torch.eye(2)
    assert angular(axes[:1], axes[1:], TARGETS[:1]).item() == pytest.approx(0.5)
    same = torch.full((5, 11), 0.1)
    assert bool(angular(same, same, TARGETS[:5]).isfinite().all())
