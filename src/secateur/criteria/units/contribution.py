"""Contribution: how far a unit moves the output of its sub-block, on its own."""

from __future__ import annotations

from torch import Tensor

from secateur.criteria.units import SUB_BLOCK_KINDS, unit_criterion
from secateur.tensors.unit_view import UnitView


@unit_criterion("contribution", kinds=SUB_BLOCK_KINDS, needs={"input_sq"}, paper="arXiv:2407.14679")
def contribution(view: UnitView) -> Tensor:
    """Norm of the output column times the root mean square of its input: `‖W_:,j‖ · rms(X_j)`.

    result: `[size]`; the channels of a head add up as squares. The independent channel contribution of
    Minitron (Muralidharan et al., 2024), with the root mean square for the mean size.
    """
    power = view.inputs(view.last, view.stats[view.last.tensor].input_sq)
    return (view.values(view.last).square().sum(2) * power).sum(1).sqrt()
