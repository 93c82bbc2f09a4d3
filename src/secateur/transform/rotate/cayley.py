"""Descend over orthogonal matrices without leaving them."""

from __future__ import annotations

import torch
from torch import Tensor

_BETAS = (0.9, 0.99)
_TINY = 1e-12


class Cayley:
    """Orthogonal matrices that descend by Adam in the tangent space and the Cayley transform.

    value: `[..., n, n]`, float64. Each step multiplies it by an orthogonal matrix that is near the identity,
    so the product stays orthogonal to rounding: Li and others, 2020 (arXiv:2002.01113).
    """

    def __init__(self, start: Tensor) -> None:
        self.value = start.double().clone()
        self._first = torch.zeros_like(self.value)
        self._second = torch.zeros_like(self.value)
        self._steps = 0

    def step(self, gradient: Tensor, rate: float) -> None:
        """Move against the gradient of the loss with respect to `value`.

        An entry of the rotation changes by about `rate` radians.
        """
        lean = self.value.mT @ gradient.double()
        skew = lean - lean.mT
        self._steps += 1
        self._first.lerp_(skew, 1 - _BETAS[0])
        self._second.lerp_(skew.square(), 1 - _BETAS[1])
        first, second = (
            moment / (1 - beta**self._steps)
            for moment, beta in zip((self._first, self._second), _BETAS, strict=True)
        )
        half = first / (second.sqrt() + _TINY) * (rate / 2)
        one = torch.eye(half.shape[-1], dtype=half.dtype)
        self.value = self.value @ torch.linalg.solve(one + half, one - half)
