"""Zeros that grow along a cubic and never come back."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from secateur.train.gradual import Gradual, cubic
from secateur.train.learner import Learner


def test_the_cubic_is_steep_at_first_and_exact_at_its_end() -> None:
    shares = [cubic(step, 10, 0.8) for step in range(12)]
    assert shares[0] == 0
    assert shares[5] == pytest.approx(0.8 * (1 - 0.125))
    assert shares[10] == shares[11] == 0.8
    steps = [later - earlier for earlier, later in pairwise(shares)]
    assert all(later <= earlier for earlier, later in pairwise(steps))
    assert cubic(0, 0, 0.5) == 0.5


def _smallest(_name: str, weight: Tensor, share: float) -> Tensor:
    order = weight.abs().flatten().argsort()
    mask = torch.ones(weight.numel(), dtype=torch.bool)
    mask[order[: round(share * weight.numel())]] = False
    return mask.view_as(weight)


def test_what_is_cut_stays_cut_whatever_the_optimizer_does() -> None:
    weight = nn.Parameter(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))
    nothing: Any = None
    learner = Learner(nothing, {"w": weight}, dict)
    gradual = Gradual(["w"], 0.5, 10, 2, _smallest)
    zeros = torch.zeros(8, 8, dtype=torch.bool)
    for step in range(14):
        gradual.cut(learner, step)
        assert int((weight == 0).sum()) == round(64 * cubic(min(step - step % 2, 10), 10, 0.5))
        assert (weight == 0)[zeros].all()
        zeros = weight.detach() == 0
        with torch.no_grad():
            weight.add_(torch.randn(8, 8) * 0.1)
        gradual.cut(learner, 100)
