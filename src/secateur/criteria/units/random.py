"""Random: the baseline every unit criterion must beat."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

from secateur.criteria.units import ALL_KINDS, unit_criterion
from secateur.tensors.unit_view import UnitView


@unit_criterion("random", kinds=ALL_KINDS)
def random(view: UnitView) -> Tensor:
    """Uniform scores in [0, 1) that depend on the seed and the group's name alone.

    result: `[size]`.
    """
    generator = torch.Generator().manual_seed(zlib.crc32(f"{view.seed} {view.group.name}".encode()))
    return torch.rand(view.group.size, generator=generator)
