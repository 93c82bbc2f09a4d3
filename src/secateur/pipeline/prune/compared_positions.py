"""Which predictions are compared when variants of a model are measured, and how many variants at once."""

from __future__ import annotations

import torch
from torch import Tensor

POSITIONS = 1024
"""Predictions compared where each variant is measured once."""
FEW_POSITIONS = 256
"""Predictions compared where the logits of the dense model are kept, or many variants are measured."""
MEMORY = 192 << 20
"""Bytes of hidden states that variants measured in one pass may take."""


def spread_positions(count: int, most: int = POSITIONS) -> Tensor:
    """Return at most `most` indices below `count`, ascending and evenly spread from the first to the last."""
    return torch.linspace(0, count - 1, min(most, count)).long()


def variants_at_once(nbytes: int) -> int:
    """Return how many variants one pass measures, where the states of each take `nbytes` bytes."""
    return max(1, MEMORY // nbytes)
