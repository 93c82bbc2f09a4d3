"""OBS: what removing a weight costs when all the others may move."""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.criteria import criterion
from secateur.tensors.linalg import damped_cholesky
from secateur.tensors.stats import LinearStats

DAMPING = 0.01
"""Share of each diagonal entry of the Gram matrix added to it."""


@criterion("obs", scope="row", needs={"gram"}, paper="arXiv:2301.00774")
def obs(weight: Tensor, stats: LinearStats) -> Tensor:
    """Squared weight over the diagonal of the inverse Gram matrix of its inputs.

    weight, result: `[out_features, in_features]`; the unit is that of the output's mean square. Hassibi and
    Stork, 1993; Frantar and Alistarh, 2023. Raises ValueError if `stats.gram` was not collected,
    SecateurError if it cannot be factorised.
    """
    if stats.gram is None:
        raise ValueError("the obs criterion needs stats.gram")
    factor, _ = damped_cholesky(stats.gram, DAMPING)
    inverse_diagonal = torch.cholesky_inverse(factor).diagonal()
    return weight.square() / inverse_diagonal.to(weight.dtype)
