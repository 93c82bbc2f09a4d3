"""Size of a model that is not made yet, estimated from the parameters inside and outside its blocks."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.core.target import Limit


@dataclass(frozen=True, slots=True)
class EstimatedSize:
    """Parameters inside and outside the blocks, the bits that each takes, and the share of zeros inside."""

    inside: float
    outside: float
    bits: float = 16.0
    embedding_bits: float = 16.0
    zeros: float = 0.0

    @property
    def bytes(self) -> int:
        """Bytes of all weights."""
        return round((self.inside * self.bits + self.outside * self.embedding_bits) / 8)

    def left(self, limit: Limit) -> float:
        """Return the parameters of the whole model that a budget leaves."""
        value = float(limit.value)
        if limit.unit == "%":
            return value * (self.inside + self.outside)
        return value if limit.metric == "params" else 8 * value / self.bits

    def left_inside(self, limit: Limit) -> float:
        """Return the parameters inside the blocks that a budget leaves, where all that goes is inside."""
        if limit.metric == "ratio":
            return self.inside * (1 - float(limit.value))
        return max(self.left(limit) - self.outside, 0.0)
