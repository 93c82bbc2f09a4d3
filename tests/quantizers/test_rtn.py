"""Rounding to nearest: no other code of the same grid is nearer to any weight."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.problems import make_problem
from tests.quantizers.problems import GRIDS, WIDTH
from torch import Tensor

from secateur.quantizers.fit import fit
from secateur.quantizers.rtn import imatrix, nearest, plainly, rtn
from secateur_runtime.kernels.quantized import Codes, Grid


def least_distances(codes: Codes, weight: Tensor) -> Tensor:
    """Return the distance of every weight from the nearest value of its grid, float64."""
    grid = codes.grid
    zeros = torch.zeros_like(codes.scales) if codes.zeros is None else codes.zeros
    points = torch.arange(grid.lowest, grid.highest + 1, dtype=torch.float64)
    values = codes.scales.double()[..., None] * (points - zeros.double()[..., None])
    groups = weight.double().view(*codes.scales.shape, grid.group)
    return (groups[..., None] - values[..., None, :]).abs().amin(-1).view(weight.shape)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_every_code_is_the_nearest(grid: Grid) -> None:
    weight, stats = make_problem(6, WIDTH)
    for codes in (rtn(weight, stats, grid), imatrix(weight, stats, grid)):
        distance = (codes.dense().double() - weight.double()).abs()
        torch.testing.assert_close(distance, least_distances(codes, weight), rtol=1e-5, atol=1e-6)


def test_only_the_importance_of_inputs_sets_them_apart() -> None:
    weight, stats = make_problem(6, WIDTH)
    grid = Grid(bits=3)
    alike = replace(stats, input_sq=torch.full((WIDTH,), 2.5))
    assert torch.equal(rtn(weight, stats, grid).values, imatrix(weight, alike, grid).values)
    scales, _ = fit(weight.view(6, -1, 32), stats.input_sq.view(-1, 32), grid)
    assert torch.equal(imatrix(weight, stats, grid).scales, scales)
    assert not torch.equal(rtn(weight, stats, grid).scales, scales)


def test_without_statistics_eight_bits_reach_the_largest_weight_of_each_group() -> None:
    weight, _ = make_problem(6, WIDTH)
    weight[2, :32] = 0
    codes = plainly(weight, 8)
    groups = weight.double().view(*codes.scales.shape, codes.grid.group)
    expected = groups.abs().amax(-1) / 127
    torch.testing.assert_close(codes.scales.double(), expected, rtol=2**-10, atol=0)
    assert not codes.dense()[2, :32].any()
    error = (codes.dense().double() - weight.double()).abs().view(groups.shape)
    assert bool((error <= expected[..., None] * 0.6).all())


def test_without_statistics_four_bits_are_rounded_to_nearest() -> None:
    weight, _ = make_problem(6, WIDTH)
    codes = plainly(weight, 4)
    assert codes.grid.bits == 4
    assert torch.equal(codes.values, nearest(weight, torch.ones(WIDTH), codes.grid).values)
