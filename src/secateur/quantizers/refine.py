"""Coordinate descent on codes and scales: each is chosen again, with all others known."""

from __future__ import annotations

import torch
from torch import Tensor

from secateur_runtime.kernels.quantized import Codes, Grid, exact_scales


def refine(weight: Tensor, gram: Tensor, codes: Codes, alive: Tensor, passes: int) -> Codes:
    """Return codes and scales on the same grid with less output error than `codes`.

    weight: the target, `[out_features, in_features]`, float32.
    gram: damped Gram matrix of the inputs, `[in_features, in_features]`, float32.
    alive: bool, of the weight's shape; other weights are zero and stay so.
    passes: how often all groups are visited.

    For one group of inputs after another, the scale is solved for with all other weights fixed, then each
    code of the group. Coordinate descent on the quadratic form of GPTQ, as CDQuant (arXiv:2406.17542) does
    for codes.
    """
    grid = codes.grid
    size = codes.grid.group
    steps = codes.scales.T.float().contiguous()
    zeros = torch.zeros_like(steps) if codes.zeros is None else codes.zeros.T.float()
    levels = (codes.values.T.float().view(len(steps), size, -1) - zeros[:, None]).contiguous()
    wanted = weight.T.contiguous()
    living = alive.T.reshape(levels.shape).float()
    slope = gram @ ((levels * steps[:, None]).view(wanted.shape) - wanted)
    for _ in range(passes):
        for group in range(len(steps)):
            place = slice(group * size, (group + 1) * size)
            before = levels[group] * steps[group]
            _settle(
                levels[group],
                steps[group],
                zeros[group],
                living[group],
                gram[place, place],
                slope[place],
                grid,
            )
            slope.addmm_(gram[:, place], levels[group] * steps[group] - before)
    values = (levels + zeros[:, None]).view(wanted.shape).T.to(torch.int8).contiguous()
    return Codes(grid, values, steps.T.half().contiguous(), codes.zeros)


def _settle(
    levels: Tensor, step: Tensor, zero: Tensor, alive: Tensor, gram: Tensor, slope: Tensor, grid: Grid
) -> None:
    """Choose scales and codes of one group again, in place.

    levels: codes less their zeros, `[group, out_features]`; step, zero: `[out_features]`; alive: as levels.
    gram: `[group, group]`; slope: half the gradient at the start, `[group, out_features]`, not changed.
    """
    pull = gram @ levels
    curve = (levels * pull).sum(0)
    best = step - torch.where(curve > 0, (levels * slope).sum(0) / curve, 0.0)
    best = (best if grid.symmetric else exact_scales(best, grid.bits)).half().float()
    local = slope + pull * (best - step)
    step.copy_(best)
    inverse = torch.where(step == 0, 0.0, 1 / step)
    curves = gram.diagonal().reciprocal().tolist()
    for row, level in enumerate(levels):
        code = torch.addcmul(level + zero, local[row], inverse, value=-curves[row])
        code = code.round_().clamp_(grid.lowest, grid.highest).sub_(zero).mul_(alive[row])
        local[row + 1 :].addr_(gram[row + 1 :, row], (code - level).mul_(step))
        level.copy_(code)
