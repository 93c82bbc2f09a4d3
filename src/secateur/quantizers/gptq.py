"""GPTQ: round column by column, and let the columns that are still to come absorb each error."""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.quantizers import quantizer
from secateur.quantizers.fit import fit, level, round_to
from secateur.quantizers.refine import refine
from secateur.tensors.linalg import damped_cholesky, default_damping, finite_gram, with_damping
from secateur.tensors.obs_sweep import inverse_factor, sweep
from secateur.tensors.stats import LinearStats
from secateur_runtime.kernels.quantized import Codes, Grid

_PASSES = 4
"""Each pass of refinement gains a quarter to a half of what the one before it gained; four cost as much as
the sweep.
"""


@quantizer("gptq", needs={"gram"}, paper="arXiv:2210.17323")
def gptq(weight: Tensor, stats: LinearStats, grid: Grid) -> Codes:
    """Round the columns in order of their inputs' size.

    Those that follow answer for each error, and for what is pruned; then refine.

    The grids are fitted to the whole weight beforehand, errors weighed as the sweep will weigh them, so that
    the order needs no place in the file. Weights that are zero stay zero while the others move.
    Raises SecateurError if the Gram matrix cannot be factorised. Frantar and others, 2022.
    """
    return joint(weight, stats, grid, weight)


def joint(weight: Tensor, stats: LinearStats, grid: Grid, pruned: Tensor) -> Codes:
    """Return the codes that lose least of `weight` with the zeros of `pruned`, the same weight as a solver pruned it.

    Pruning and rounding then answer for each other, on one Gram matrix: SparseGPT's joint form (arXiv:2301.00774).
    """
    codes, damping = swept(weight, stats, grid, pruned)
    return refine(
        weight, with_damping(finite_gram(stats), damping).float().contiguous(), codes, pruned != 0, _PASSES
    )


def swept(weight: Tensor, stats: LinearStats, grid: Grid, start: Tensor) -> tuple[Codes, float]:
    """Return what the sweep alone makes of `weight`, on grids fitted to `start`, zero where that is, and the damping that it took."""
    gram = finite_gram(stats)
    order = gram.diagonal().argsort(descending=True, stable=True)
    factor, damping = damped_cholesky(gram[order][:, order], default_damping(stats))
    upper = inverse_factor(factor).float()
    rows, width = weight.shape
    importance = torch.empty(width)
    importance[order] = upper.diagonal().square().reciprocal()
    scales, zeros = fit(start.view(rows, -1, grid.group), importance.view(-1, grid.group), grid)
    current = weight[:, order].T.contiguous()
    values = torch.empty(width, rows)

    def settle(column: int) -> Tensor:
        place = int(order[column])
        scale = scales[:, place // grid.group]
        zero = None if zeros is None else zeros[:, place // grid.group]
        codes = round_to(current[column, :, None], scale, zero, grid).squeeze(-1)
        values[place] = codes.where(start[:, place] != 0, level(zero))
        return (values[place] - level(zero)) * scale.float()

    sweep(current, upper, settle)
    return Codes(grid, values.T.to(torch.int8).contiguous(), scales, zeros), damping
