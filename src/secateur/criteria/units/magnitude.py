"""Magnitude: the size of everything a unit owns."""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.criteria.units import ALL_KINDS, unit_criterion
from secateur.tensors.unit_view import UnitView


@unit_criterion("magnitude", kinds=ALL_KINDS)
def magnitude(view: UnitView) -> Tensor:
    """Euclidean norm of all weights and biases of the unit.

    result: `[size]`.
    """
    return torch.stack([view.values(part).square().sum((1, 2)) for part in view.group.slices]).sum(0).sqrt()
