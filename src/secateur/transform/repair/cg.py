"""Least squares on a given support: conjugate gradients for all rows at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.transform.repair.objective import Problem

TOLERANCE = 1e-5
"""Stop when an iteration lowers the error by less than this share of it."""

MAX_ITERATIONS = 200


@dataclass(frozen=True, slots=True)
class Scaled:
    """A problem whose inputs are scaled to unit mean square, so that no preconditioner is needed.

    dense: `[out_features, in_features]`, float32. gram: unit diagonal, `[in_features, in_features]`, float32.
    norm: what the inputs were divided by, `[in_features]`, float32.
    """

    dense: Tensor
    gram: Tensor
    norm: Tensor

    @classmethod
    def of(cls, task: Problem) -> Scaled:
        """Scale a problem; its damping makes every norm positive."""
        gram = task.gram
        norm = gram.diagonal().sqrt()
        gram.div_(norm).div_(norm[:, None])
        return cls(task.dense * norm.float(), gram.float(), norm.float())

    def unscale(self, weight: Tensor) -> Tensor:
        """Return the weight for the inputs as they are."""
        return weight / self.norm


def solve_on_support(
    start: Tensor, mask: Tensor, task: Scaled, tolerance: float = TOLERANCE, limit: int = MAX_ITERATIONS
) -> Tensor:
    """Return the weight on `mask` closest to `task.dense` under `task.gram`, each row on its own.

    start, mask, result: `[out_features, in_features]`; entries off the mask are 0 in the result.
    """
    weight = start * mask
    residual = (task.dense - weight) @ task.gram
    error = float(((task.dense - weight) * residual).sum())
    residual *= mask
    direction = residual.clone()
    power = residual.square().sum(dim=1, keepdim=True)
    for _ in range(limit):
        image = direction @ task.gram
        curvature = (direction * image).sum(dim=1, keepdim=True)
        length = torch.where(curvature > 0, power / curvature, 0.0)
        weight.addcmul_(direction, length)
        residual.addcmul_(image.mul_(mask), length, value=-1)
        gained = float((length * power).sum())
        error -= gained
        if gained <= tolerance * max(error, 0.0):
            break
        before = power
        power = residual.square().sum(dim=1, keepdim=True)
        direction = torch.addcmul(residual, direction, torch.where(before > 0, power / before, 0.0))
    return weight
