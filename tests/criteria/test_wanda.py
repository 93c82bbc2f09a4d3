from __future__ import annotations

import torch

from secateur.criteria.wanda import wanda
from secateur.tensors.stats import LinearStats


def test_matches_the_formula_in_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(5, 9, generator=generator)
    inputs = torch.randn(40, 9, generator=generator)
    stats = LinearStats(40, inputs.square().mean(0), inputs.mean(0))
    expected = weight.double().abs() * inputs.double().norm(dim=0) / 40**0.5
    torch.testing.assert_close(wanda(weight, stats).double(), expected, rtol=1e-5, atol=1e-7)


def test_a_dead_input_scores_zero() -> None:
    weight = torch.ones(2, 3)
    saliency = wanda(weight, LinearStats(1, torch.tensor([4.0, 0.0, 1.0]), torch.zeros(3)))
    assert saliency.tolist() == [[2.0, 0.0, 1.0]] * 2
