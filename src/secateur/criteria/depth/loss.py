"""Loss: how badly the text is predicted without a block."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy

from secateur.criteria.depth import depth_criterion


@depth_criterion("loss", compares="predictions", paper="arXiv:2406.10594")
def loss(_dense: Tensor, pruned: Tensor, targets: Tensor) -> Tensor:
    """The negative log likelihood, nats, of the token that follows each position.

    pruned: logits `[positions, vocab_size]`; targets: `[positions]`. BlockPruner (Zhong et al., 2024).
    """
    return cross_entropy(pruned, targets, reduction="none")
