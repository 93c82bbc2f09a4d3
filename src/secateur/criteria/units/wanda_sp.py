"""Wanda-sp: Wanda's scores, summed over what a unit feeds into its sub-block's output."""

from __future__ import annotations

from torch import Tensor

from secateur.criteria.units import SUB_BLOCK_KINDS, unit_criterion
from secateur.tensors.unit_view import UnitView


@unit_criterion("wanda-sp", kinds=SUB_BLOCK_KINDS, needs={"input_sq"}, paper="arXiv:2312.11983")
def wanda_sp(view: UnitView) -> Tensor:
    """Mean over outputs of `|W_ij|` times the root mean square of input j, summed over the unit's inputs.

    result: `[size]`. The structured form of Wanda that FLAP (An et al., 2024) compares with.
    """
    size = view.inputs(view.last, view.stats[view.last.tensor].input_sq).sqrt()
    return (view.values(view.last).abs().mean(2) * size).sum(1)
