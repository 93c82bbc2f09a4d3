"""Negative log likelihood against its formula in float64."""

from __future__ import annotations

import pytest
import torch
from tests.criteria.depth.problems import FIRST, SECOND, TARGETS, log_probability

from secateur.criteria.depth.loss import loss


def test_it_is_its_formula() -> None:
    expected = [-log_probability(b, int(token)) for b, token in zip(SECOND, TARGETS, strict=True)]
    assert loss(FIRST, SECOND, TARGETS).tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_the_dense_logits_do_not_count() -> None:
    assert torch.equal(loss(FIRST, SECOND, TARGETS), loss(torch.zeros_like(FIRST), SECOND, TARGETS))
