"""Factorisations that several stages need."""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.core.errors import SecateurError

_ATTEMPTS = 8


def damped_cholesky(gram: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    """Return a Gram matrix damped until it can be factorised, and its lower Cholesky factor, both float64.

    gram: `[n, n]`, symmetric, of any float type; left as it was.
    damping: share of each diagonal entry added to it. Rounding in a float32 sum can leave an eigenvalue below zero, so it
    grows tenfold until the factorisation succeeds. Raises SecateurError if it never does.
    """
    # One copy that is changed in place: for a wide linear each copy is the largest thing in memory.
    damped = gram.to(torch.float64, copy=True)
    diagonal = damped.diagonal()
    own, scale = diagonal.clone(), diagonal.mean()
    floor = scale * 1e-6 if scale > 0 else torch.ones_like(scale)
    for _ in range(_ATTEMPTS):
        diagonal.copy_(own + own.clamp_min(floor) * damping)
        factor, info = torch.linalg.cholesky_ex(damped)
        if not info:
            return damped, factor
        damping *= 10
    raise SecateurError("the calibration statistics of a linear are not positive semi-definite; collect them again")
