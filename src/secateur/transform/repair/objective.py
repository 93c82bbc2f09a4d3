"""What every repair minimises, and the factorisations it needs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.core.pattern import Pattern, Scope
from secateur.tensors.linalg import finite_gram, gram_factor, with_damping
from secateur.tensors.stats import LinearStats
from secateur.transform.mask import Scorer, choose_mask
from secateur_runtime.errors import UsageError


@dataclass(frozen=True, slots=True)
class Problem:
    """Minimise `tr((W - dense) gram (W - dense)ᵀ)` over sparse W.

    dense: the best dense weight, `[out_features, in_features]`, float32.
    raw: Gram matrix of the inputs as collected, `[in_features, in_features]`, float32; damping: share of its
    diagonal added.
    factor: lower Cholesky factor of the damped matrix, float64.
    """

    dense: Tensor
    raw: Tensor
    damping: float
    factor: Tensor

    @property
    def gram(self) -> Tensor:
        """Damped Gram matrix, `[in_features, in_features]`, float64, positive definite; made on each read."""
        return with_damping(self.raw, self.damping)


def problem(weight: Tensor, stats: LinearStats, damping: float | None = None) -> Problem:
    """Return the damped least-squares problem of one linear.

    With `stats.cross` the dense weight is the ridge solution that reproduces the dense model's outputs from
    the pruned model's inputs, and the damping pulls towards `weight`; without, it is `weight`.
    Raises SecateurError if the Gram matrix is missing, not finite, or cannot be factorised.
    """
    raw = finite_gram(stats)
    factor, share = gram_factor(stats, damping)
    if stats.cross is None:
        return Problem(weight.float(), raw, share, factor)
    pull = with_damping(raw, share).diagonal() - raw.diagonal()
    target = stats.cross.double() + weight.double() * pull
    return Problem(torch.cholesky_solve(target.T, factor).T.float().contiguous(), raw, share, factor)


def damped(stats: LinearStats, damping: float | None = None) -> tuple[Tensor, Tensor]:
    """Return the damped Gram matrix and its lower Cholesky factor, both float64.

    damping: share of each diagonal entry added to it; by default the sampling error of the correlations,
    inputs over tokens, but at least `DAMPING`. It grows tenfold until the factorisation succeeds. Raises
    SecateurError if it never does.
    """
    factor, share = gram_factor(stats, damping)
    return with_damping(finite_gram(stats), share), factor


def chosen_mask(
    weight: Tensor, stats: LinearStats, pattern: Pattern, scorer: Scorer | None, scope: Scope
) -> Tensor:
    """Return the keep-mask of a criterion; raises UsageError if there is none."""
    if scorer is None:
        raise UsageError("this repair does not choose what to prune: name a criterion, such as wanda")
    return choose_mask(scorer(weight, stats), pattern, scope)
