"""Wanda: the size of the weight times the norm of its input."""

from __future__ import annotations

from torch import Tensor

from secateur.criteria import criterion
from secateur.tensors.stats import LinearStats


@criterion("wanda", scope="row", needs={"input_sq"}, paper="arXiv:2306.11695")
def wanda(weight: Tensor, stats: LinearStats) -> Tensor:
    """Weight magnitude times the root mean square of its input feature.

    weight, result: `[out_features, in_features]`. Sun et al., 2023.
    """
    return weight.abs() * stats.input_sq.sqrt()
