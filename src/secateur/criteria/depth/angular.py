"""Angular distance: how far a run of blocks turns the states that pass through it."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.functional import cosine_similarity

from secateur.criteria.depth import depth_criterion


@depth_criterion("angular", compares="span", paper="arXiv:2403.17887")
def angular(before: Tensor, after: Tensor, _targets: Tensor) -> Tensor:
    """`arccos(cos(before, after)) / π` of each position's state.

    before, after: `[positions, hidden_size]`. Gromov et al., 2024, who take one position, the last, of each
    window.
    """
    return cosine_similarity(before, after, dim=-1).clamp(-1, 1).arccos() / math.pi
