"""Factorisations that several stages need."""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.tensors.stats import LinearStats
from secateur_runtime.errors import SecateurError

_ATTEMPTS = 8
DAMPING = 0.01
"""Least share of each diagonal entry of H added to it.

Relative to the entry, not to the mean diagonal: a few features of a language model are a thousand times
larger than the rest, and a mean they dominate would drown the others.
"""


def with_damping(gram: Tensor, damping: float) -> Tensor:
    """Return a float64 copy of a Gram matrix with the share `damping` of each diagonal entry added to it.

    gram: `[n, n]`. For an input that is always zero, a millionth of the mean diagonal takes the place of the
    entry, or one if that mean is zero.
    """
    # Laid out by columns, as LAPACK wants it, so that it can be factorised where it lies.
    damped = torch.empty(gram.shape, dtype=torch.float64).T.copy_(gram)
    diagonal = damped.diagonal()
    scale = diagonal.mean()
    floor = scale * 1e-6 if scale > 0 else torch.ones_like(scale)
    diagonal.add_(diagonal.clamp_min(floor) * damping)
    return damped


def damped_cholesky(gram: Tensor, damping: float) -> tuple[Tensor, float]:
    """Return the lower Cholesky factor of `with_damping(gram, damping)`, float64, and the damping used.

    gram: `[n, n]`, symmetric, of any float type; left as it was.
    Rounding in a float32 sum can leave an eigenvalue below zero, so the damping grows tenfold until the
    factorisation succeeds. Raises SecateurError if it never does.
    """
    info = torch.empty((), dtype=torch.int32)
    for _ in range(_ATTEMPTS):
        damped = with_damping(gram, damping)
        # In place: for a wide linear each copy is the largest thing in memory.
        torch.linalg.cholesky_ex(damped, out=(damped, info))
        if not info:
            return damped, damping
        damping *= 10
    raise SecateurError(
        "the calibration statistics of a linear are not positive semi-definite; collect them again"
    )


def default_damping(stats: LinearStats) -> float:
    """Return the sampling error of the correlations, inputs over tokens, but at least `DAMPING`."""
    return min(max(DAMPING, len(stats.input_sq) / max(stats.tokens, 1)), 1.0)


def gram_factor(stats: LinearStats, damping: float | None = None) -> tuple[Tensor, float]:
    """Return `damped_cholesky` of the Gram matrix of a linear's inputs, by default with `default_damping`.

    Raises SecateurError if the Gram matrix is missing, not finite, or cannot be factorised.
    """
    return damped_cholesky(finite_gram(stats), default_damping(stats) if damping is None else damping)


def finite_gram(stats: LinearStats) -> Tensor:
    """Return the Gram matrix of the inputs; raises SecateurError if it is missing or not finite."""
    if stats.gram is None:
        raise SecateurError("this method needs the Gram matrix of the inputs, which was not collected")
    if not bool(stats.gram.isfinite().all()):
        raise SecateurError("the calibration activations of a linear are not finite")
    return stats.gram
