"""Fitted grids against a search over many more of them in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from secateur.quantizers.fit import fit, level, round_to
from secateur_runtime.kernels.quantized import Grid

GROUPS = torch.randn(9, 4, 16, generator=torch.Generator().manual_seed(0))
IMPORTANCE = torch.rand(4, 16, generator=torch.Generator().manual_seed(1)) + 0.05


def weighted_error(groups: Tensor, importance: Tensor, scale: Tensor, zero: Tensor, grid: Grid) -> Tensor:
    """Return the error of every group once each weight takes the nearest of all values of its grid."""
    codes = torch.arange(grid.lowest, grid.highest + 1, dtype=torch.float64)
    values = scale.double()[..., None] * (codes - zero.double()[..., None])
    distance = (groups.double()[..., None] - values[..., None, :]).abs().amin(-1)
    return (importance.double() * distance.square()).sum(-1)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_symmetric_grid_is_near_the_best_of_many(bits: int) -> None:
    grid = Grid(bits=bits, group=16)
    scales, zeros = fit(GROUPS, IMPORTANCE, grid)
    assert zeros is None
    assert scales.shape == (9, 4)
    zero = torch.zeros(9, 4)
    found = weighted_error(GROUPS, IMPORTANCE, scales, zero, grid)
    end = GROUPS.abs().amax(-1) / -grid.lowest
    tried = [
        weighted_error(GROUPS, IMPORTANCE, sign * end * share, zero, grid)
        for share in torch.linspace(0.3, 1.5, 121)
        for sign in (1, -1)
    ]
    best = torch.stack(tried).amin(0)
    assert 0.95 * float(best.sum()) < float(found.sum()) < 1.06 * float(best.sum())


@pytest.mark.parametrize("bits", [2, 4])
def test_an_asymmetric_grid_is_near_the_best_of_many(bits: int) -> None:
    grid = Grid(bits=bits, group=16, symmetric=False)
    groups = GROUPS + 0.7
    scales, zeros = fit(groups, IMPORTANCE, grid)
    assert zeros is not None
    assert zeros.dtype == torch.int8
    assert int(zeros.min()) >= grid.lowest
    assert int(zeros.max()) <= grid.highest
    found = weighted_error(groups, IMPORTANCE, scales, zeros, grid)
    width = (groups.amax(-1).clamp_min(0) - groups.amin(-1).clamp_max(0)) / (grid.highest - grid.lowest)
    tried = [
        weighted_error(groups, IMPORTANCE, width * share, torch.full((9, 4), float(zero)), grid)
        for share in torch.linspace(0.5, 1.1, 31)
        for zero in range(grid.lowest, grid.highest + 1)
    ]
    best = torch.stack(tried).amin(0)
    assert float(found.sum()) < 1.25 * float(best.sum())
    assert float(found.sum()) >= float(best.sum()) * 0.98


def test_what_matters_is_fitted_better() -> None:
    """A weight that costs a million times as much as the others has nearly no error in most groups."""
    importance = torch.full((4, 16), 1e-3)
    importance[:, 3] = 1e3
    grid = Grid(bits=3, group=16)
    scales, _ = fit(GROUPS, importance, grid)
    dense = round_to(GROUPS, scales, None, grid) * scales.float()[..., None]
    error = (dense - GROUPS).square()
    assert float(error[..., 3].median()) < 1e-3 * float(error[..., torch.arange(16) != 3].median())


def test_an_asymmetric_grid_heeds_the_importance_too() -> None:
    importance = IMPORTANCE.square().square()
    grid = Grid(bits=2, group=16, symmetric=False)
    lost = []
    for fitted_to in (importance, torch.ones(4, 16)):
        scales, zeros = fit(GROUPS, fitted_to, grid)
        assert zeros is not None
        lost.append(weighted_error(GROUPS, importance, scales, zeros, grid))
    # no group loses more, but by the rounding of scales
    assert bool((lost[0] <= lost[1] * 1.01 + 1e-9).all())
    assert float(lost[0].sum()) < 0.95 * float(lost[1].sum())


def test_groups_of_zeros_have_no_error() -> None:
    for symmetric in (True, False):
        grid = Grid(group=16, symmetric=symmetric)
        scales, zeros = fit(torch.zeros(2, 16), torch.ones(16), grid)
        codes = round_to(torch.zeros(2, 16), scales, zeros, grid) - level(zeros)[..., None]
        assert not (codes * scales.float()[..., None]).any()


def test_codes_are_the_nearest_and_stay_on_the_grid() -> None:
    grid = Grid(bits=3, group=5, symmetric=False)
    weights = torch.tensor([[-9.0, -1.1, 0.0, 0.6, 9.0]])
    codes = round_to(weights, torch.tensor([0.5]), torch.tensor([1], dtype=torch.int8), grid)
    assert codes.tolist() == [[-4, -1, 1, 2, 3]]
    assert round_to(weights, torch.tensor([0.0]), None, Grid(bits=3, group=5)).tolist() == [[0] * 5]
