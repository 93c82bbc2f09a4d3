"""Minitron: the size of a unit's activations, whatever reads them."""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.core.graph import Slice
from secateur.criteria.units import ALL_KINDS, unit_criterion
from secateur.tensors.unit_view import UnitView


@unit_criterion("minitron", kinds=ALL_KINDS, needs={"input_abs"}, paper="arXiv:2407.14679")
def minitron(view: UnitView) -> Tensor:
    """Root mean square over windows of the mean size of the unit's activations.

    result: `[size]`. A neuron is read at the input of the sub-block's last linear; a head too, as the norm
    over its channels. A hidden channel is read at the output of every norm, summed over the norms that have
    statistics; linears that share an input count once. Muralidharan et al., 2024. Raises ValueError if the
    sizes were not collected.
    """
    if view.group.kind != "hidden":
        return _sizes(view, view.last).square().sum(1).sqrt()
    readers = {
        id(view.stats[part.tensor]): part
        for part in view.group.slices
        if part.dim == 1 and part.tensor in view.stats
    }
    return torch.stack([_sizes(view, part)[:, 0] for part in readers.values()]).sum(0)


def _sizes(view: UnitView, part: Slice) -> Tensor:
    size = view.stats[part.tensor].input_abs
    if size is None:
        raise ValueError("the minitron criterion needs stats.input_abs")
    return view.inputs(part, size)
