"""GPTQ: round column by column; the columns that are still to come absorb each error."""

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
"""A pass of refinement gains 25 to 50 % of what the one before it gained; four cost as much as the sweep."""


def joint(weight: Tensor, stats: LinearStats, grid: Grid, pruned: Tensor) -> Codes:
    """Return the codes of least output error against `weight`, with the zeros of `pruned`.

    weight, pruned: `[out_features, in_features]`, before and after a solver pruned it. Pruning and rounding
    then compensate for each other on one Gram matrix: SparseGPT's joint form (arXiv:2301.00774).
    """
    codes, damping = swept(weight, stats, grid, pruned)
    return refine(
        weight, with_damping(finite_gram(stats), damping).float().contiguous(), codes, pruned != 0, _PASSES
    )


@quantizer("gptq", needs={"gram"}, joint=joint, paper="arXiv:2210.17323")
def gptq(weight: Tensor, stats: LinearStats, grid: Grid) -> Codes:
    """Round the columns in order of their inputs' size, then refine.

    Columns that follow compensate for each error. The grids are fitted to the whole weight beforehand, with
    errors weighed as in the sweep, so that the order needs no place in the file. Weights that are zero stay
    zero while the others move. Raises SecateurError if the Gram matrix cannot be factorised. Frantar and
    others, 2022.
    """
    return joint(weight, stats, grid, weight)


def swept(weight: Tensor, stats: LinearStats, grid: Grid, start: Tensor) -> tuple[Codes, float]:
    """Return the codes of `weight` after the sweep alone, and the damping that it used.

    start: the weight that the grids are fitted to, `[out_features, in_features]`; where it is zero, the
    result is.
    """
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
