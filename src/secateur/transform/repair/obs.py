"""The SparseGPT sweep: prune column by column, and let the columns to the right absorb each error."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.core.pattern import Pattern, Scope
from secateur.tensors.obs_sweep import BLOCK, inverse_factor, sweep
from secateur.tensors.stats import LinearStats
from secateur.transform.mask import Scorer, choose_mask
from secateur.transform.repair import repair
from secateur.transform.repair.objective import chosen_mask, problem


@repair("obs", needs={"gram"}, paper="arXiv:2301.00774")
def obs(weight: Tensor, stats: LinearStats, pattern: Pattern, scorer: Scorer | None, scope: Scope) -> Tensor:
    """Sweep over the columns, moving the error of each pruned weight onto the weights to its right.

    weight, result: `[out_features, in_features]`, float32. Without a criterion the sweep chooses by its own
    score, squared current weight over the inverse Hessian's diagonal, block by block; with one, it keeps that
    mask.
    Raises SecateurError if the Gram matrix cannot be factorised. Frantar and Alistarh, 2023.
    """
    pattern.check("this weight", weight.shape[1])
    task = problem(weight, stats)
    upper = inverse_factor(task.factor).to(weight.dtype)
    dense = task.dense
    # For a wide linear its float64 factor is the largest thing in memory.
    del task
    fixed = None if scorer is None else chosen_mask(dense, stats, pattern, scorer, scope)
    return _Pruning(dense.T.contiguous(), upper, pattern, scope).run(fixed)


@dataclass(slots=True)
class _Pruning:
    """`current` is the weight transposed, so that a column of it is contiguous."""

    current: Tensor
    upper: Tensor
    pattern: Pattern
    scope: Scope

    def run(self, fixed: Tensor | None) -> Tensor:
        kept = torch.ones_like(self.current, dtype=torch.bool) if fixed is None else fixed.T.contiguous()
        width = len(kept)
        step = BLOCK if not self.pattern.m else max(BLOCK // self.pattern.m, 1) * self.pattern.m
        span = self.pattern.m or step

        def settle(column: int) -> Tensor:
            if fixed is None and column % span == 0:
                kept[column : column + span] = self._choose(column, min(column + span, width))
            return self.current[column].masked_fill(~kept[column], 0.0)

        sweep(self.current, self.upper, settle, step)
        return self.current.masked_fill_(~kept, 0.0).T.contiguous()

    def _choose(self, start: int, end: int) -> Tensor:
        diagonal = self.upper.diagonal()[start:end, None]
        score = (self.current[start:end] / diagonal).square()
        return choose_mask(score.T, self._share(start, end), self.scope).T

    def _share(self, start: int, end: int) -> Pattern:
        """Return the block's part of the ratio, so that rounding in the blocks does not add up."""
        if self.pattern.m:
            return self.pattern
        rows = self.current.shape[1]
        kept = self.pattern.kept(end * rows) - self.pattern.kept(start * rows)
        return Pattern(1 - kept / ((end - start) * rows))
