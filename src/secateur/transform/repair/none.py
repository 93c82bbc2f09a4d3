"""No repair: zero what the criterion prunes, leave the rest."""

from __future__ import annotations

from torch import Tensor

from secateur.core.pattern import Pattern, Scope
from secateur.tensors.stats import LinearStats
from secateur.transform.mask import Scorer
from secateur.transform.repair import repair
from secateur.transform.repair.objective import chosen_mask


@repair("none")
def none(weight: Tensor, stats: LinearStats, pattern: Pattern, scorer: Scorer | None, scope: Scope) -> Tensor:
    """Zero the pruned weights and leave the others as they are.

    weight, result: `[out_features, in_features]`. Raises UsageError without a criterion.
    """
    return weight.masked_fill(~chosen_mask(weight, stats, pattern, scorer, scope), 0.0)
