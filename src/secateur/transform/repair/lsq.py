"""Masked least squares: the best weights on a support that a criterion chose."""

from __future__ import annotations

from torch import Tensor

from secateur.core.pattern import Pattern, Scope
from secateur.tensors.stats import LinearStats
from secateur.transform.mask import Scorer
from secateur.transform.repair import repair
from secateur.transform.repair.cg import Scaled, solve_on_support
from secateur.transform.repair.objective import chosen_mask, problem


@repair("lsq", needs={"gram"}, paper="arXiv:2406.07831, section 3.3")
def lsq(weight: Tensor, stats: LinearStats, pattern: Pattern, scorer: Scorer | None, scope: Scope) -> Tensor:
    """Solve the layer's least squares on the criterion's mask, to convergence.

    weight, result: `[out_features, in_features]`, float32. Raises UsageError without a criterion,
    SecateurError if the Gram matrix cannot be factorised. Meng et al., 2024.
    """
    mask = chosen_mask(weight, stats, pattern, scorer, scope)
    task = Scaled.of(problem(weight, stats))
    return task.unscale(solve_on_support(task.dense, mask, task))
