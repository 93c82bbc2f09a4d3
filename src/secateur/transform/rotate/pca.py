"""Principal axes: the rotation after which the first channels carry most."""

from __future__ import annotations

import torch
from torch import Tensor


def principal(moments: Tensor) -> Tensor:
    """Return the principal axes of second moments as columns of an orthogonal matrix, the largest first.

    moments: `[n, n]`; result: `[n, n]`, float64. SliceGPT (arXiv:2401.15024) rotates by it, here with one
    matrix for all blocks. Signs are fixed, so that equal moments give equal axes.
    """
    axes: Tensor = torch.linalg.eigh(moments.double())[1]
    axes = axes.flip(-1)
    largest = axes.gather(-2, axes.abs().argmax(-2, keepdim=True))
    signs = torch.where(largest < 0, -1.0, 1.0)
    return signs * axes
