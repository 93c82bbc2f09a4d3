"""DSnoT: swap pruned weights for kept ones until each row's mean error vanishes; no weight changes value."""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.core.pattern import Pattern, Scope
from secateur.tensors.stats import LinearStats
from secateur.transform.mask import Scorer
from secateur.transform.repair import repair
from secateur.transform.repair.objective import chosen_mask

CYCLES = 50


@repair("dsnot", needs={"input_sq", "input_mean"}, paper="arXiv:2310.08915")
def dsnot(
    weight: Tensor, stats: LinearStats, pattern: Pattern, scorer: Scorer | None, scope: Scope
) -> Tensor:
    """Repair the criterion's mask by growing and pruning one weight of each row at a time.

    weight, result: `[out_features, in_features]`. Each cycle grows the pruned weight that explains most of
    the row's mean error for its input's variance, and prunes the kept weight of least Wanda score that brings
    the error further down; a row stops when no such pair lowers its error, or after 50 cycles. An N:M pattern
    swaps inside one group.
    Raises UsageError without a criterion. Zhang et al., 2023.
    """
    mask = chosen_mask(weight, stats, pattern, scorer, scope)
    share = weight * stats.input_mean
    variance = (stats.input_sq - stats.input_mean.square()).clamp_min(1e-12)
    growth = share.abs() / variance
    loss = weight.abs() * stats.input_sq.sqrt()
    active = torch.arange(weight.shape[0], device=weight.device)
    for _ in range(CYCLES):
        swapped = _swap(mask, active, (share, growth, loss), pattern.m)
        active = active[swapped]
        if not len(active):
            break
    return weight.masked_fill(~mask, 0.0)


def _swap(mask: Tensor, rows: Tensor, terms: tuple[Tensor, Tensor, Tensor], group: int) -> Tensor:
    """Swap one pair in each of `rows` of `mask`, in place; return which rows did."""
    kept = mask[rows]
    share, growth, loss = (term[rows] for term in terms)
    error = share.masked_fill(kept, 0.0).sum(dim=1, keepdim=True)
    helpful = ~kept & (share.sign() == error.sign())
    grown_score, grown = growth.masked_fill(~helpful, -1.0).max(dim=1, keepdim=True)
    remaining = error - share.gather(1, grown)
    allowed = kept & (share.sign() == -remaining.sign())
    if group:
        position = torch.arange(mask.shape[1], device=mask.device)
        allowed &= position // group == grown // group
    pruned_score, pruned = loss.masked_fill(~allowed, torch.inf).min(dim=1, keepdim=True)
    after = remaining + share.gather(1, pruned)
    swap = ((grown_score > 0) & pruned_score.isfinite() & (after.abs() < error.abs())).squeeze(1)
    mask[rows[swap], grown[swap, 0]] = True
    mask[rows[swap], pruned[swap, 0]] = False
    return swap
