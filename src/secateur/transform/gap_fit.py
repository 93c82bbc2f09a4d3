"""Refit a linear so that it compensates for dropped blocks behind it: ridge least squares.

Held-out windows choose the damping.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

DAMPINGS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Shares of each diagonal entry of the Gram matrix that may be added to it."""


@dataclass(slots=True)
class _GapSums:
    gram: Tensor
    cross: Tensor
    energy: float = 0.0

    def error(self, change: Tensor) -> float:
        """Return the squared error that remains after `change`."""
        return (
            self.energy
            - 2 * float((change * self.cross).sum())
            + float(((change @ self.gram) * change).sum())
        )


class SeamFit:
    """The change of a linear's weight that brings the state nearest to what it was after the gap.

    Every fourth window is held out: it decides how strongly the fit is damped, and whether there is one.
    Least squares towards what the dropped blocks would have added, as ReplaceMe (arXiv:2505.02819) does with
    a matrix of its own.
    """

    def __init__(self, out_features: int, in_features: int) -> None:
        self._fit, self._held = (
            _GapSums(torch.zeros(in_features, in_features), torch.zeros(out_features, in_features))
            for _ in range(2)
        )
        self._windows = 0

    def add(self, inputs: Tensor, missing: Tensor, states: Tensor) -> None:
        """Add windows of calibration text to the sums.

        inputs: of the linear, `[windows, tokens, in_features]`. missing: what its output lacks,
        `[windows, tokens, out_features]`. states: hidden states there, `[windows, tokens, hidden_size]`; each
        token counts by the inverse square of its state, so that a few massive activations do not dominate.
        """
        scale = states.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny).reciprocal()
        for x, lack in zip(inputs * scale, missing * scale, strict=True):
            sums = self._held if self._windows % 4 == 3 else self._fit
            sums.gram.addmm_(x.T, x)
            sums.cross.addmm_(lack.T, x)
            sums.energy += float(lack.double().square().sum())
            self._windows += 1

    def change(self, kept: Tensor | None = None) -> Tensor | None:
        """Return what to add to the weight, `[out_features, in_features]`, or None if nothing helps.

        kept: indices of the inputs that may have weights; the result is zero elsewhere.
        """
        inputs = torch.arange(len(self._fit.gram)) if kept is None else kept
        best = 0.0
        error = self._held.energy
        for damping in DAMPINGS:
            left = self._held.error(_ridge(self._fit.gram, self._fit.cross, inputs, damping))
            if left < error:
                best = damping
                error = left
        if not best:
            return None
        return _ridge(self._fit.gram + self._held.gram, self._fit.cross + self._held.cross, inputs, best)


def _ridge(gram: Tensor, cross: Tensor, inputs: Tensor, damping: float) -> Tensor:
    small = gram[inputs][:, inputs].double()
    power = small.diagonal()
    # An input that is always zero gets no weight, rather than a division by zero.
    small = small + torch.diag(damping * power + power.max().clamp_min(1e-30) * 1e-9)
    change = torch.zeros_like(cross)
    change[:, inputs] = torch.linalg.solve(small, cross[:, inputs].double().T).T.float()
    return change
