"""Taylor: the first-order change of the loss when a unit's weights become zero."""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.criteria.units import ALL_KINDS, unit_criterion
from secateur.tensors.unit_view import UnitView, unit_values


@unit_criterion("taylor", kinds=ALL_KINDS, needs={"gradient"}, paper="arXiv:2305.11627")
def taylor(view: UnitView) -> Tensor:
    """`|Σ w·g|` of each channel of each slice, summed over the unit's channels and slices.

    result: `[size]`. LLM-Pruner (Ma et al., 2023) with vector-wise importance and sums over the group: signs
    cancel within one row or column, which is removed as a whole, and not between the matrices. Only tensors
    with a gradient count: of groups of kind `hidden` the streamed gradients know the blocks, not the
    embedding nor the head. Raises ValueError if no slice has a gradient.
    """
    known = [part for part in view.group.slices if part.tensor in view.gradients]
    if not known:
        raise ValueError("the taylor criterion needs gradients")
    size = view.group.size
    changes = [
        (view.values(part) * unit_values(view.gradients[part.tensor], part, size)).sum(2).abs().sum(1)
        for part in known
    ]
    return torch.stack(changes).sum(0)
