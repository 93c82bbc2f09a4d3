"""GPTQ: round column by column, and let the columns that are still to come absorb each error."""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.core.codes import Codes, Grid
from secateur.core.linalg import damped_cholesky, default_damping, finite_gram
from secateur.core.stats import LinearStats
from secateur.core.sweep import inverse_factor, sweep
from secateur.quantizers import quantizer
from secateur.quantizers.fit import fit, level, round_to


@quantizer("gptq", needs={"gram"}, paper="arXiv:2210.17323")
def gptq(weight: Tensor, stats: LinearStats, grid: Grid) -> Codes:
    """Round the columns in order of their inputs' size; those that follow answer for each error, and for what is pruned.

    The grids are fitted to the whole weight beforehand, errors weighed as the sweep will weigh them, so that the order needs no
    place in the file. Weights that are zero stay zero while the others move: SparseGPT's joint form with the mask given.
    Raises SecateurError if the Gram matrix cannot be factorised. Frantar and others, 2022.
    """
    gram = finite_gram(stats)
    order = gram.diagonal().argsort(descending=True, stable=True)
    factor, _ = damped_cholesky(gram[order][:, order], default_damping(stats))
    upper = inverse_factor(factor).float()
    rows, width = weight.shape
    importance = torch.empty(width)
    importance[order] = upper.diagonal().square().reciprocal()
    scales, zeros = fit(weight.view(rows, -1, grid.group), importance.view(-1, grid.group), grid)
    current, values = weight[:, order].T.contiguous(), torch.empty(width, rows)

    def settle(column: int) -> Tensor:
        place = int(order[column])
        scale = scales[:, place // grid.group]
        zero = None if zeros is None else zeros[:, place // grid.group]
        codes = round_to(current[column, :, None], scale, zero, grid).squeeze(-1)
        values[place] = codes.where(weight[:, place] != 0, level(zero))
        return (values[place] - level(zero)) * scale.float()

    sweep(current, upper, settle)
    return Codes(grid, values.T.to(torch.int8).contiguous(), scales, zeros)
