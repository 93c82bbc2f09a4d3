"""Fit the scale and the zero of a quantization grid to a group of weights."""

from __future__ import annotations

import torch
from torch import Tensor

from secateur_runtime.kernels.quantized import Grid, exact_scales

_SYMMETRIC = torch.linspace(0.65, 1.2, 23)
"""Tried ends of the grid, as shares of the largest weight of the group."""
_ASYMMETRIC = torch.linspace(0.65, 1.0, 15)
_TINY = 6e-8
"""The least positive float16."""


def fit(groups: Tensor, importance: Tensor, grid: Grid) -> tuple[Tensor, Tensor | None]:
    """Return the scales and zeros of least weighted squared error, both of shape `groups.shape[:-1]`.

    groups: weights `[..., group]`, float32.
    importance: cost of a squared error in each weight, broadcast to `groups`.

    Scales are float16, zeros int8, or None for a symmetric grid. Several ends of the grid are tried; on a
    symmetric one, each gives codes, and the best scale for these codes is solved for.
    """
    return _symmetric(groups, importance, grid) if grid.symmetric else _asymmetric(groups, importance, grid)


def round_to(groups: Tensor, scales: Tensor, zeros: Tensor | None, grid: Grid) -> Tensor:
    """Return the codes nearest to weights `[..., group]` on grids of scales and zeros `[...]`, float32."""
    step = scales.float()[..., None]
    codes = torch.where(step == 0, 0.0, groups / step)
    if zeros is not None:
        codes = codes + zeros[..., None]
    return codes.round_().clamp_(grid.lowest, grid.highest)


def level(zeros: Tensor | None) -> Tensor:
    """Return the codes that stand for zero, float32."""
    return torch.zeros(1) if zeros is None else zeros.float()


def _symmetric(groups: Tensor, importance: Tensor, grid: Grid) -> tuple[Tensor, None]:
    place = groups.abs().argmax(-1, keepdim=True)
    # The end of the grid that has one code more goes where the largest weight is.
    largest = -groups.gather(-1, place).squeeze(-1)
    weighed = groups * importance
    best = torch.zeros_like(largest)
    gained = torch.full_like(largest, -1.0)
    for share in _SYMMETRIC:
        codes = round_to(groups, largest * (share / -grid.lowest), None, grid)
        along = (weighed * codes).sum(-1)
        square = (importance * codes.square()).sum(-1)
        gain = torch.where(square > 0, along.square() / square, 0.0)
        better = gain > gained
        best = torch.where(square > 0, along / square, 0.0).where(better, best)
        gained = gain.where(better, gained)
    return best.half(), None


def _asymmetric(groups: Tensor, importance: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    # Zero is one of the values, so that a pruned weight stays one.
    low = groups.amin(-1).clamp_max(0)
    high = groups.amax(-1).clamp_min(0)
    best = torch.zeros_like(low)
    zero = torch.zeros_like(low)
    lost = torch.full_like(low, torch.inf)
    for share in _ASYMMETRIC:
        scale = exact_scales((high - low) * (share / (grid.highest - grid.lowest)), grid.bits).clamp_min(
            _TINY
        )
        zeros = (grid.lowest - (low * share / scale).round()).clamp(grid.lowest, grid.highest)
        codes = round_to(groups, scale, zeros, grid) - zeros[..., None]
        error = (importance * (codes * scale[..., None] - groups).square()).sum(-1)
        better = error < lost
        best = scale.where(better, best)
        zero = zeros.where(better, zero)
        lost = error.where(better, lost)
    return best.half(), zero.to(torch.int8)
