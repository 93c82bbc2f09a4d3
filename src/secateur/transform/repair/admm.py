"""ALPS: choose the support by ADMM on the layer's least squares, then solve on it."""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.core.pattern import Pattern, Scope
from secateur.tensors.stats import LinearStats
from secateur.transform.mask import Scorer, choose_mask
from secateur.transform.repair import repair
from secateur.transform.repair.cg import Scaled, solve_on_support
from secateur.transform.repair.objective import chosen_mask, problem

PENALTY = 0.1
"""First weight of the two copies' difference, in units of an input's power."""

PERIOD = 3
"""Iterations between two changes of the penalty."""

GROWTH = ((0.1, 1.3), (0.005, 1.2), (0.0, 1.1))
"""How the penalty grows: by the second number while more than the first, as a share, of the support changed.
"""

SETTLED = 3e-4
"""Stop when less than this share of the support changed in a period, after at least `LEAST` iterations."""

LEAST = 30
MOST = 300


@repair("admm", needs={"gram"}, paper="arXiv:2406.07831")
def admm(weight: Tensor, stats: LinearStats, pattern: Pattern, scorer: Scorer | None, scope: Scope) -> Tensor:
    """Pull a dense and a sparse copy of the weight together by ADMM, then solve on the sparse one's support.

    weight, result: `[out_features, in_features]`, float32. A criterion gives the support to start from;
    without one it is that of the largest weights in units of their inputs. Raises SecateurError if the Gram
    matrix cannot be factorised. Meng et al., 2024.
    """
    pattern.check("this weight", weight.shape[1])
    whole = problem(weight, stats)
    start = None if scorer is None else chosen_mask(whole.dense, stats, pattern, scorer, scope)
    task = Scaled.of(whole)
    # Its factor is a float64 matrix of the inputs' width, which nothing below needs.
    del whole
    sparse = _select(task, pattern, scope, start)
    return task.unscale(solve_on_support(sparse, sparse != 0, task))


def _select(task: Scaled, pattern: Pattern, scope: Scope, start: Tensor | None) -> Tensor:
    """Return a sparse weight whose support ADMM settled on."""
    # float32 will do: this only steers the choice, and the solve that follows does not use it
    values, vectors = torch.linalg.eigh(task.gram)
    penalty = PENALTY
    pull = _pull(values, vectors, penalty)
    mask = reference = choose_mask(task.dense.abs(), pattern, scope) if start is None else start
    sparse = task.dense * mask
    dual = torch.zeros_like(sparse)
    for step in range(1, MOST + 1):
        shifted = torch.addmm(task.dense, sparse - dual - task.dense, pull).add_(dual)
        mask = choose_mask(shifted.abs(), pattern, scope)
        sparse = shifted * mask
        dual = shifted - sparse
        if step % PERIOD:
            continue
        changed = float((mask ^ reference).count_nonzero()) / max(float(mask.count_nonzero()), 1.0)
        if changed < SETTLED and step > LEAST:
            break
        reference = mask
        factor = next(growth for bound, growth in GROWTH if changed >= bound)
        penalty *= factor
        dual /= factor
        pull = _pull(values, vectors, penalty)
    return sparse


def _pull(values: Tensor, vectors: Tensor, penalty: float) -> Tensor:
    """Return `penalty (H + penalty I)⁻¹`: how far the dense copy follows the sparse one."""
    return (vectors * (penalty / (values + penalty))) @ vectors.T
