"""LaCo: how far the last states turn when a block absorbs the weight differences of the blocks after it."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cosine_similarity

from secateur.criteria.depth import depth_criterion


@depth_criterion("laco", compares="last", paper="arXiv:2402.11187")
def laco(dense: Tensor, merged: Tensor, _targets: Tensor) -> Tensor:
    """`1 - cos(dense, merged)` of each position's last state.

    dense, merged: `[positions, hidden_size]`. The measure of LaCo (Yang et al., 2024). The paper's threshold
    is replaced by a search over all merges of neighbours for the least cost, so that a budget can be met.
    """
    return 1 - cosine_similarity(dense, merged, dim=-1)
