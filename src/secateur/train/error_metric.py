"""How much an error in each direction of a hidden state changes the teacher's predictions."""

from __future__ import annotations

import torch
from torch import Tensor

_PLAIN = 0.2
"""Share of the identity: directions that a few windows do not show still count a little."""


def metric_root(fisher: Tensor) -> Tensor:
    """Return the matrix that an error is multiplied by before it is squared and summed.

    fisher: mean of g gᵀ over tokens, `[hidden_size, hidden_size]`, with g the gradient of the loss with
    respect to the state. The result has the same shape. The squared length of `error @ root`, for an error
    `[..., hidden_size]`, is then the second-order estimate of what the error adds to the loss, scaled so that
    random errors count as without it.
    """
    size = len(fisher)
    trace = float(fisher.trace())
    if not 0 < trace < float("inf"):
        return torch.eye(size)
    mixed = fisher * ((1 - _PLAIN) * size / trace) + _PLAIN * torch.eye(size)
    root: Tensor = torch.linalg.cholesky(mixed)
    return root
