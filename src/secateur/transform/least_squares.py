"""Refit the retained inputs of a linear to compensate for the removed ones: closed-form ridge regression."""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.tensors.stats import LinearStats
from secateur.transform.repair.objective import damped

DAMPING = 0.2
"""Share of each diagonal entry of the Gram matrix added to it: on text not fitted to, the error of 32,768
tokens is least there.
"""


def refit(weight: Tensor, stats: LinearStats, kept: Tensor) -> Tensor:
    """Return the weight that reproduces its own outputs best from the inputs `kept`, the others zero.

    weight, result: `[out_features, in_features]`, float32; kept: input indices. The minimiser of
    `E |W' x - W x|²` with ridge damping is `W H[:, K] (H_KK)⁻¹`. Raises SecateurError without a usable
    Gram matrix.
    """
    gram, _ = damped(stats, DAMPING)
    across = weight.double() @ gram[:, kept]
    solved = torch.linalg.solve(gram[kept][:, kept], across.T).T
    result = torch.zeros_like(weight)
    result[:, kept] = solved.float()
    return result
