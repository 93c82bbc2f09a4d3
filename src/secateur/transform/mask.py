"""From saliency to a keep-mask with exactly the requested number of survivors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from secateur.core.pattern import Pattern, Scope
from secateur.tensors.stats import LinearStats
from secateur_runtime.errors import SecateurError

Scorer = Callable[[Tensor, LinearStats], Tensor]


def choose_mask(saliency: Tensor, pattern: Pattern, scope: Scope = "row") -> Tensor:
    """Return the bool keep-mask of the most salient weights.

    saliency, result: `[out_features, in_features]`; a higher score is kept. The number of survivors is exact:
    among equal scores the lower index is kept, and where a ratio does not divide a row, neighbouring rows
    differ by one so that the tensor's total is right. N:M patterns choose within `m` consecutive inputs
    whatever the scope.
    Raises SecateurError if a score is not a number, UsageError if the width does not hold the pattern.
    """
    rows, width = saliency.shape
    pattern.check("this weight", width)
    score = saliency if saliency.dtype in (torch.float32, torch.float64) else saliency.float()
    if score.isnan().any():
        raise SecateurError(
            "saliency is not a number somewhere: the weights or the calibration statistics hold NaN or"
            " infinity"
        )
    if pattern.m:
        return _keep_top(score.reshape(-1, pattern.m), pattern.n).view(rows, width)
    if scope == "tensor":
        return _keep_top(score.reshape(1, -1), pattern.kept(score.numel())).view(rows, width)
    return _keep_rows(score, pattern.kept(score.numel()))


def _keep_rows(score: Tensor, total: int) -> Tensor:
    """Keep `total` weights, the same number in each row, or one more in evenly spread rows."""
    rows = score.shape[0]
    if total % rows == 0:
        return _keep_top(score, total // rows)
    steps = torch.arange(rows + 1, device=score.device) * total // rows
    longer = steps.diff() > total // rows
    mask = torch.empty_like(score, dtype=torch.bool)
    mask[longer] = _keep_top(score[longer], total // rows + 1)
    mask[~longer] = _keep_top(score[~longer], total // rows)
    return mask


def _keep_top(score: Tensor, count: int) -> Tensor:
    """Keep the `count` highest of each row, the first ones among equals."""
    width = score.shape[1]
    if count <= 0 or count >= width:
        return torch.full_like(score, count >= width, dtype=torch.bool)
    threshold = score.kthvalue(width - count + 1, dim=1, keepdim=True).values
    mask = score >= threshold
    if int(mask.count_nonzero()) == count * len(mask):
        return mask
    crowded = (mask.sum(dim=1) > count).nonzero().squeeze(1)
    mask[crowded] = _first_among_equals(score[crowded], threshold[crowded], count)
    return mask


def _first_among_equals(score: Tensor, threshold: Tensor, count: int) -> Tensor:
    above = score > threshold
    equal = score == threshold
    missing = count - above.sum(dim=1, keepdim=True)
    return above | (equal & (equal.cumsum(dim=1) <= missing))


def holds(weight: Tensor, pattern: Pattern) -> bool:
    """Return whether a weight `[out_features, in_features]` has at least the zeros of its pattern."""
    if pattern.m:
        return int((weight.reshape(-1, pattern.m) != 0).sum(1).max()) <= pattern.n
    return int((weight == 0).sum()) >= weight.numel() - pattern.kept(weight.numel())
