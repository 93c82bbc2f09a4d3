"""ALPS: choose the support by ADMM on the layer's least squares, then solve on it."""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.apply.mask import Scorer, choose_mask
from secateur.apply.repair import repair
from secateur.apply.repair.cg import Scaled, solve_on_support
from secateur.apply.repair.objective import chosen_mask, problem
from secateur.core.pattern import Pattern, Scope
from secateur.core.stats import LinearStats

PENALTY = 0.1
PERIOD = 3
ITERATIONS = 300
SETTLED = 3e-4


@repair("admm", needs={"gram"}, paper="arXiv:2406.07831")
def admm(weight: Tensor, stats: LinearStats, pattern: Pattern, scorer: Scorer | None, scope: Scope) -> Tensor:
    """Let a dense and a sparse copy of the weight pull at each other until they agree, then solve on the support.

    weight, result: `[out_features, in_features]`, float32. A criterion gives the support to start from; without one the
    start is the dense weight. Raises SecateurError if the Gram matrix cannot be factorised. Meng et al., 2024.
    """
    pattern.check("this weight", weight.shape[1])
    whole = problem(weight, stats)
    task = Scaled.of(whole)
    start = None if scorer is None else chosen_mask(whole.dense, stats, pattern, scorer, scope)
    sparse = _select(task, pattern, scope, start)
    return task.unscale(solve_on_support(sparse, sparse != 0, task))


def _select(task: Scaled, pattern: Pattern, scope: Scope, start: Tensor | None) -> Tensor:
    values, vectors = torch.linalg.eigh(task.gram.double())
    penalty = PENALTY
    mask = choose_mask(task.dense.abs(), pattern, scope) if start is None else start
    sparse = task.dense * mask
    dual = torch.zeros_like(sparse)
    pull = _pull(values, vectors, penalty)
    reference = mask
    for step in range(1, ITERATIONS + 1):
        dense = task.dense + (sparse - dual - task.dense) @ pull
        shifted = dense + dual
        mask = choose_mask(shifted.abs(), pattern, scope)
        sparse = shifted * mask
        dual = shifted - sparse
        if step % PERIOD == 0:
            changed = float((mask ^ reference).sum()) / float(mask.sum())
            reference = mask
            factor = 1.3 if changed > 0.1 else 1.2 if changed > 0.005 else 1.1
            if changed < SETTLED and step > 30:
                break
            penalty *= factor
            dual /= factor
            pull = _pull(values, vectors, penalty)
    return sparse


def _pull(values: Tensor, vectors: Tensor, penalty: float) -> Tensor:
    scaled = vectors * (penalty / (values + penalty))
    return (scaled @ vectors.T).float()
