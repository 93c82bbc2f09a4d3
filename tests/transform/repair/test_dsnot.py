from __future__ import annotations

import pytest
import torch

from secateur.core.pattern import Pattern
from secateur.criteria.wanda import wanda
from secateur.tensors.stats import LinearStats
from secateur.transform.mask import choose_mask
from secateur.transform.repair.dsnot import dsnot


@pytest.mark.parametrize("text", ["0.5", "2:4", "0.75"])
def test_no_row_loses_more_of_its_mean_output(text: str) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(40, 64, generator=generator)
    inputs = torch.randn(200, 64, generator=generator) + torch.randn(64, generator=generator)
    stats = LinearStats(200, inputs.square().mean(0), inputs.mean(0))
    pattern = Pattern.parse(text)
    result = dsnot(weight, stats, pattern, wanda, "row")
    before = weight.masked_fill(~choose_mask(wanda(weight, stats), pattern), 0.0)

    def lost(pruned: torch.Tensor) -> torch.Tensor:
        return ((weight - pruned) @ stats.input_mean).abs()

    assert bool((lost(result) <= lost(before) + 1e-6).all())
    assert float(lost(result).mean()) < 0.7 * float(lost(before).mean())
    assert bool(((result == weight) | (result == 0)).all())


def test_swaps_the_pair_the_paper_would() -> None:
    weight = torch.tensor([[3.0, 2.0, 1.0, 0.5]])
    # pruning the last two loses 0.8 + 0.1; the third grows back, and of the kept only the second's share is
    # below zero
    stats = LinearStats(9, torch.tensor([1.0, 1.0, 1.0, 1.0]), torch.tensor([0.1, -0.3, 0.8, 0.2]))
    assert dsnot(weight, stats, Pattern.parse("0.5"), wanda, "row").tolist() == [[3.0, 0.0, 1.0, 0.0]]


def test_centred_inputs_leave_the_mask() -> None:
    weight = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    stats = LinearStats(9, torch.ones(8), torch.zeros(8))
    kept = dsnot(weight, stats, Pattern.parse("0.5"), wanda, "row") != 0
    assert torch.equal(kept, choose_mask(weight.abs(), Pattern.parse("0.5")))
