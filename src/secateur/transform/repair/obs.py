"""The SparseGPT sweep: prune column by column, and let the columns to the right absorb each error."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.core.pattern import Pattern, Scope
from secateur.core.stats import LinearStats
from secateur.transform.mask import Scorer, choose_mask
from secateur.transform.repair import repair
from secateur.transform.repair.objective import chosen_mask, problem

BLOCK = 128


@repair("obs", needs={"gram"}, paper="arXiv:2301.00774")
def obs(weight: Tensor, stats: LinearStats, pattern: Pattern, scorer: Scorer | None, scope: Scope) -> Tensor:
    """Sweep over the columns, moving the error of each pruned weight onto the weights to its right.

    weight, result: `[out_features, in_features]`, float32. Without a criterion the sweep chooses by its own score,
    squared current weight over the inverse Hessian's diagonal, block by block; with one, it keeps that mask.
    Raises SecateurError if the Gram matrix cannot be factorised. Frantar and Alistarh, 2023.
    """
    pattern.check("this weight", weight.shape[1])
    task = problem(weight, stats)
    upper = _inverse_factor(task.factor).to(weight.dtype)
    dense = task.dense
    # For a wide linear its float64 factor is the largest thing in memory.
    del task
    fixed = None if scorer is None else chosen_mask(dense, stats, pattern, scorer, scope)
    return _Sweep(dense.T.contiguous(), upper, pattern, scope).run(fixed)


def _inverse_factor(lower: Tensor) -> Tensor:
    """Return the upper triangular U with `Uᵀ U` equal to the inverse of `L Lᵀ`, in the memory of L."""
    inverse = torch.cholesky_inverse(lower, out=lower)
    upper: Tensor = torch.linalg.cholesky(inverse, upper=True, out=inverse)
    return upper


@dataclass(slots=True)
class _Sweep:
    """`current` is the weight transposed, so that a column of it is contiguous."""

    current: Tensor
    upper: Tensor
    pattern: Pattern
    scope: Scope

    def run(self, fixed: Tensor | None) -> Tensor:
        width = self.current.shape[0]
        kept = torch.ones_like(self.current, dtype=torch.bool) if fixed is None else fixed.T.contiguous()
        step = BLOCK if not self.pattern.m else max(BLOCK // self.pattern.m, 1) * self.pattern.m
        for start in range(0, width, step):
            end = min(start + step, width)
            errors = self._block(start, end, kept, choose=fixed is None)
            if end < width:
                self.current[end:].addmm_(self.upper[start:end, end:].T, errors, alpha=-1)
        return self.current.masked_fill_(~kept, 0.0).T.contiguous()

    def _block(self, start: int, end: int, kept: Tensor, *, choose: bool) -> Tensor:
        """Sweep columns `start:end`; return their errors, `[end - start, out_features]`."""
        errors = torch.empty_like(self.current[start:end])
        span = self.pattern.m or end - start
        for column in range(start, end):
            if choose and (column - start) % span == 0:
                kept[column : column + span] = self._choose(column, column + span)
            lost = self.current[column].masked_fill(kept[column], 0.0) / self.upper[column, column]
            errors[column - start] = lost
            self.current[column:end].addr_(self.upper[column, column:end], lost, alpha=-1)
        return errors

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
