"""Divergence: how far the predictions move from those of the whole model."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from secateur.criteria.depth import depth_criterion


@depth_criterion("kl", compares="predictions", paper="arXiv:2410.14649")
def kl(dense: Tensor, pruned: Tensor, _targets: Tensor) -> Tensor:
    """`KL(dense || pruned)` of each position's prediction, nats.

    dense, pruned: logits `[positions, vocab_size]`. The fitness of EvoPress (Sieberling et al., 2024).
    """
    return kl_div(log_softmax(pruned, -1), log_softmax(dense, -1), reduction="none", log_target=True).sum(-1)
