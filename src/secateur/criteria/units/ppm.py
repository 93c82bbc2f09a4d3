"""PPM: the paired peak-to-peak magnitude of a neuron's gate and up rows."""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.criteria.units import unit_criterion
from secateur.tensors.unit_view import UnitView


@unit_criterion("ppm", kinds=("ffn",), paper="arXiv:2512.22671")
def ppm(view: UnitView) -> Tensor:
    """Greatest weight plus the size of the least, summed over the neuron's gate row and up row.

    result: `[size]`. Martra, 2025; biases do not count.
    """
    rows = [
        view.values(part)
        for part in view.group.slices
        if part.dim == 0 and view.weights[part.tensor].dim() == 2
    ]
    return torch.stack([row.amax((1, 2)) + row.amin((1, 2)).abs() for row in rows]).sum(0)
