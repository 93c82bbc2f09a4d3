"""FLAP: how far the output strays when a fluctuating input is replaced by its mean."""

from __future__ import annotations

from torch import Tensor

from secateur.criteria.units import SUB_BLOCK_KINDS, unit_criterion
from secateur.tensors.unit_view import UnitView


@unit_criterion("flap", kinds=SUB_BLOCK_KINDS, needs={"input_sq"}, paper="arXiv:2312.11983")
def flap(view: UnitView) -> Tensor:
    """Weighted input fluctuation `Var(X_j) · ‖W_:,j‖²`, the mean over the unit's inputs.

    result: `[size]`. An et al., 2024; attention is scored as in the paper, without the second square of its
    code.
    """
    stats = view.stats[view.last.tensor]
    # two float32 means may differ by less than nothing
    variance = view.inputs(view.last, stats.input_sq - stats.input_mean.square()).clamp_min(0)
    return (view.values(view.last).square().sum(2) * variance).mean(1)
