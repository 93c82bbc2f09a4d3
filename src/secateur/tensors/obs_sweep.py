"""The OBS sweep over the columns of a weight, which pruning and rounding share.

Each error moves onto the columns to its right.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

BLOCK = 128


def inverse_factor(lower: Tensor) -> Tensor:
    """Return the upper triangular U with `Uᵀ U` equal to the inverse of `L Lᵀ`, in the memory of L."""
    inverse = torch.cholesky_inverse(lower, out=lower)
    upper: Tensor = torch.linalg.cholesky(inverse, upper=True, out=inverse)
    return upper


def sweep(current: Tensor, upper: Tensor, settle: Callable[[int], Tensor], step: int = BLOCK) -> None:
    """Settle every column in order and let those that follow absorb what it lost.

    current: the weight transposed, `[in_features, out_features]`, so that a column of the weight is
    contiguous; changed in place.
    upper: as `inverse_factor` gives it. settle: column -> the values `[out_features]` it shall have, made of
    `current[column]`, which all columns before it have updated; columns of one `step` are updated at once.
    Frantar and others, 2022 and 2023 (arXiv:2210.17323, arXiv:2301.00774).
    """
    width = current.shape[0]
    for start in range(0, width, step):
        end = min(start + step, width)
        errors = torch.empty_like(current[start:end])
        for column in range(start, end):
            lost = (current[column] - settle(column)) / upper[column, column]
            errors[column - start] = lost
            current[column:end].addr_(upper[column, column:end], lost, alpha=-1)
        if end < width:
            current[end:].addmm_(upper[start:end, end:].T, errors, alpha=-1)
