"""Repairs, one solver per file: choose which weights survive, and refit them to compensate for the rest.

Every solver lowers the same objective, the mean squared change of the linear's output over the calibration
tokens: `tr((W - W0) H (W - W0)ᵀ)` with `H = stats.gram`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from secateur.tensors.moments import MOMENTS
from secateur_runtime.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from secateur.core.pattern import Pattern, Scope
    from secateur.tensors.stats import LinearStats
    from secateur.transform.mask import Scorer

Repair: TypeAlias = "Callable[[Tensor, LinearStats, Pattern, Scorer | None, Scope], Tensor]"
"""`(weight, stats, pattern, scorer, scope) -> weight`, both `[out_features, in_features]`, float32.

The input is not changed.
Pruned entries of the result are exactly 0 and meet the pattern exactly. `scorer` is the function of a
criterion, or None for a solver that chooses for itself.
"""

REPAIRS: Registry[Repair] = Registry("repair", "secateur.transform.repair", "secateur.repairs", needs=MOMENTS)
repair = REPAIRS.register
