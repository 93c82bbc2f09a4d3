"""OWL: blocks with more outlying scores keep more (Yin et al., 2023)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from secateur.allocate import Scorer, allocation, settle
from secateur.core.graph import Linear
from secateur.tensors.layer_stream import LiveBlock
from secateur.tensors.stats import LinearStats

OUTLIER = 5.0
"""A score counts as outlying beyond this many times the block's mean (M in the paper)."""
REACH = 0.08
"""Largest distance of a block's ratio from the budget (lambda in the paper)."""


@allocation("owl", needs={"input_sq"}, paper="arXiv:2310.05175")
class Owl:
    """Spread a budget by each block's share of outlying Wanda scores."""

    def __init__(self, budget: float, scorer: Scorer) -> None:
        self._budget = budget
        self._share: dict[str, float] = {}
        self._sizes: dict[str, int] = {}

    def observe(
        self, block: LiveBlock, linears: tuple[Linear, ...], stats: Mapping[str, LinearStats], hidden: Tensor
    ) -> None:
        """Measure the share of scores `|W| * sqrt(mean x²)` above `OUTLIER` times their mean in the block."""
        scores = [
            block.weight(linear.tensor).abs() * stats[linear.tensor].input_sq.sqrt() for linear in linears
        ]
        count = sum(score.numel() for score in scores)
        limit = OUTLIER * sum(float(score.sum(dtype=score.dtype)) for score in scores) / count
        share = sum(int((score > limit).sum()) for score in scores) / count
        for linear, score in zip(linears, scores, strict=True):
            self._share[linear.tensor] = share
            self._sizes[linear.tensor] = score.numel()

    def ratios(self) -> dict[str, float]:
        """Return ratios within `REACH` of the budget, lower where the share of outliers is higher."""
        low = min(self._share.values())
        high = max(self._share.values())
        spread = max(high - low, 1e-12)
        wanted = {
            name: self._budget - REACH * (2 * (share - low) / spread - 1)
            for name, share in self._share.items()
        }
        return settle(wanted, self._sizes, self._budget)
