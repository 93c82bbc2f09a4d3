"""Refinement is a descent: no code and no scale alone can be improved at its end."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from tests.problems import make_problem
from tests.quantizers.problems import GRIDS, WIDTH, output_error

from secateur.quantizers.refine import refine
from secateur.quantizers.rtn import rtn
from secateur_runtime.kernels.quantized import Grid


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_refining_never_loses_more_and_is_a_minimum_in_every_code(grid: Grid) -> None:
    """After enough passes no single code can be changed, the others as they are, without losing more."""
    weight, stats = make_problem(8, WIDTH)
    assert stats.gram is not None
    alive = torch.rand(weight.shape, generator=torch.Generator().manual_seed(2)) < 0.8
    codes = rtn(weight.masked_fill(~alive, 0.0), stats, grid)
    lost = [output_error(codes, weight, stats)]
    for _ in range(30):
        codes = refine(weight, stats.gram, codes, alive, 1)
        lost.append(output_error(codes, weight, stats))
    assert all(later <= earlier * (1 + 1e-4) for earlier, later in pairwise(lost))
    assert lost[-1] < 0.95 * lost[0]
    assert bool((codes.dense()[~alive] == 0).all())
    best = lost[-1] * (1 - 1e-4)
    for row, column in ((0, 0), (3, 50), (7, 95)):
        for change in (-1, 1):
            value = int(codes.values[row, column]) + change
            if alive[row, column] and grid.lowest <= value <= grid.highest:
                values = codes.values.clone()
                values[row, column] = value
                assert output_error(replace(codes, values=values), weight, stats) >= best


def test_the_scale_is_the_least_squares_one() -> None:
    """One group for each row and fixed codes: the scale is the projection of the weight on the codes."""
    weight, stats = make_problem(6, 32)
    assert stats.gram is not None
    codes = rtn(weight, stats, Grid(bits=8))
    doubled = replace(codes, scales=codes.scales * 1.05)
    found = refine(weight, stats.gram, doubled, weight != 0, 1)
    ours = codes.values.float()
    projected = ((ours @ stats.gram) * weight).sum(1) / ((ours @ stats.gram) * ours).sum(1)
    torch.testing.assert_close(found.scales[:, 0].float(), projected, rtol=1e-3, atol=0)
