"""Block influence: how far a block turns the states that pass through it."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cosine_similarity

from secateur.criteria.depth import depth_criterion


@depth_criterion("influence", compares="block", paper="arXiv:2403.03853")
def influence(before: Tensor, after: Tensor, _targets: Tensor) -> Tensor:
    """`1 - cos(before, after)` of each position's state.

    before, after: `[positions, hidden_size]`. ShortGPT (Men et al., 2024).
    """
    return 1 - cosine_similarity(before, after, dim=-1)
