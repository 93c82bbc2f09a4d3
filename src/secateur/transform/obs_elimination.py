"""Greedy unit elimination by reconstruction error after a least-squares refit (OBS).

The output of the last linear of a sub-block is `W x`. Dropping the inputs P and refitting the others by least
squares leaves the error `tr(W_P [(H⁻¹)_PP]⁻¹ W_Pᵀ)` (Hassibi and Stork, 1993; block form as in Týr,
arXiv:2503.09657).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.tensors.stats import LinearStats
from secateur.transform.repair.objective import damped

ROUNDS = 48
"""Units are removed in about this many rounds; between rounds the scores of the rest are computed again."""


@dataclass(frozen=True, slots=True)
class Elimination:
    """The order in which units are removed, and the error after each removal.

    order: indices of units, the first to be removed first.
    errors: squared output error, mean over tokens, after 0, 1, ... removals; one more entry than `order`.
    """

    order: tuple[int, ...]
    errors: tuple[float, ...]


def eliminate(weight: Tensor, stats: LinearStats, block: int) -> Elimination:
    """Return the order in which to remove the units of a weight's inputs.

    weight: `[out_features, in_features]`; unit `i` owns inputs `[i*block, (i+1)*block)`. Raises SecateurError
    if the statistics hold no usable Gram matrix.
    """
    _, factor = damped(stats)
    inverse = torch.cholesky_inverse(factor).float()
    dense = weight.T.float().clone()
    alive = torch.ones(dense.shape[0] // block, dtype=torch.bool)
    order: list[int] = []
    errors = [0.0]
    while len(order) < len(alive) - 1:
        scores = _scores(dense, inverse, block).masked_fill(~alive, torch.inf)
        count = max(1, min(len(alive) // ROUNDS, int(alive.sum()) - 1))
        removed = scores.topk(count, largest=False).indices
        errors += _remove(dense, inverse, removed, block, errors[-1])
        alive[removed] = False
        order += removed.tolist()
    order += alive.nonzero().flatten().tolist()
    return Elimination(tuple(order), (*errors, float("inf")))


def _scores(dense: Tensor, inverse: Tensor, block: int) -> Tensor:
    """Return the error of dropping each unit alone."""
    if block == 1:
        return dense.square().sum(1) / inverse.diagonal().clamp_min(torch.finfo(torch.float32).tiny)
    units = dense.shape[0] // block
    rows = torch.arange(dense.shape[0]).view(units, block)
    own = inverse[rows[:, :, None], rows[:, None, :]] + torch.eye(block) * 1e-12
    solved: Tensor = torch.linalg.solve(own, dense.view(units, block, -1))
    return (dense.view(units, block, -1) * solved).sum((1, 2))


def _remove(dense: Tensor, inverse: Tensor, removed: Tensor, block: int, before: float) -> list[float]:
    """Remove units from `dense` `[in_features, out_features]` and from the inverse, both in place.

    removed: indices of units. Returns the error after each of them, which starts at `before`.
    """
    inputs = (removed[:, None] * block + torch.arange(block)).flatten()
    own = inverse[inputs][:, inputs].double()
    factor = torch.linalg.cholesky(
        own + torch.eye(len(own), dtype=torch.float64) * own.diagonal().mean() * 1e-9
    )
    solved = torch.linalg.solve_triangular(factor, dense[inputs].double(), upper=False)
    losses = solved.square().sum(1).view(len(removed), block).sum(1).cumsum(0)
    # Once solved, sums of so few products lose nothing in float32, at a sixth of the time.
    across = torch.linalg.solve_triangular(factor, inverse[inputs].double(), upper=False).float()
    dense.addmm_(across.T, solved.float(), alpha=-1)
    inverse.addmm_(across.T, across, alpha=-1)
    dense[inputs] = 0
    inverse[inputs] = 0
    inverse[:, inputs] = 0
    return [before + float(loss) for loss in losses]
