"""The OBS sweep over the columns of a weight, for pruning and for rounding.

The columns to the right compensate for the error of each column.
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
    """Set every column in order and let the columns that follow compensate for its error.

    current: the weight transposed, `[in_features, out_features]`, so that a column of the weight is
    contiguous; changed in place.
    upper: `[in_features, in_features]`, from `inverse_factor`.
    settle: column -> its new values `[out_features]`, made from `current[column]`, which all columns before
    it have updated.
    step: number of columns after which the columns to the right of them are updated, all at once.
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
