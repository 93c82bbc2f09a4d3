"""RIA: how large a weight is among those of its row and of its column."""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.criteria import criterion
from secateur.tensors.stats import LinearStats

ACTIVATION_POWER = 0.5


@criterion("ria", scope="tensor", needs={"input_sq"}, paper="ICLR 2024, Plug-and-Play (RIA)")
def ria(weight: Tensor, stats: LinearStats) -> Tensor:
    """Relative importance, the weight's share of its row and of its column, times a root of its input's norm.

    weight, result: `[out_features, in_features]`. Zhang et al., ICLR 2024.
    """
    size = weight.abs()
    # an all-zero row or column has no share to give: 0 / tiny stays 0
    tiny = torch.finfo(size.dtype).tiny
    share = size / size.sum(dim=0).clamp_min(tiny) + size / size.sum(dim=1, keepdim=True).clamp_min(tiny)
    return share * stats.input_sq.sqrt().pow(ACTIVATION_POWER)
