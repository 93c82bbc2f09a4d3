"""Coordinate descent on codes and scales.

What a sweep settled too early is settled again, knowing all the rest.
"""

from __future__ import annotations

import torch
from torch import Tensor

from secateur_runtime.kernels.quantized import Codes, Grid, exact_scales


def refine(weight: Tensor, gram: Tensor, codes: Codes, alive: Tensor, passes: int) -> Codes:
    """Return codes and scales that lose less of `weight` `[out_features, in_features]` than `codes` do, on the same grid.

    gram: damped Gram matrix of the inputs, `[in_features, in_features]`, float32. alive: bool, of the weight's shape; what is not,
    is zero and stays so. For one group of inputs after another the scale is solved for, all other weights as they are, then each
    code of the group. Coordinate descent on the quadratic form of GPTQ, as CDQuant (arXiv:2406.17542) does for codes.
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
    """Settle a group in place: levels `[group, out_features]`, steps `[out_features]`.

    `slope`, at its start, is left as it was.
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
