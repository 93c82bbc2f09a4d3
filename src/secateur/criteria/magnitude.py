"""Magnitude: the size of the weight alone."""

from __future__ import annotations

from torch import Tensor

from secateur.criteria import criterion
from secateur.tensors.stats import LinearStats


@criterion("magnitude", scope="tensor", paper="arXiv:1506.02626")
def magnitude(weight: Tensor, stats: LinearStats) -> Tensor:
    """Absolute value of the weight.

    weight, result: `[out_features, in_features]`. `stats` is not read. Han et al., 2015.
    """
    del stats
    return weight.abs()
