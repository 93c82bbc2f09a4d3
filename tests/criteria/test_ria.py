from __future__ import annotations

import torch

from secateur.criteria.ria import ria
from secateur.tensors.stats import LinearStats


def test_matches_the_formula_in_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 6, generator=generator)
    inputs = torch.randn(40, 6, generator=generator)
    saliency = ria(weight, LinearStats(40, inputs.square().mean(0), inputs.mean(0)))
    size, norm = weight.double().abs(), inputs.double().square().mean(0).sqrt()
    for row in range(4):
        for column in range(6):
            share = size[row, column] / size[:, column].sum() + size[row, column] / size[row].sum()
            expected = float(share * norm[column].sqrt())
            assert abs(float(saliency[row, column]) - expected) < 1e-5 * expected


def test_zero_rows_and_columns_score_zero() -> None:
    weight = torch.ones(3, 3)
    weight[1], weight[:, 2] = 0, 0
    saliency = ria(weight, LinearStats(1, torch.ones(3), torch.zeros(3)))
    assert bool((saliency[1] == 0).all())
    assert bool((saliency[:, 2] == 0).all())
    assert float(saliency[0, 0]) == 1.0
