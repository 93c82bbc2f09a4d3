"""Expected loss of quality by pruning: perplexity relative to the whole model's.

All measured on SmolLM2-135M-Instruct without training (WikiText-2, LOG.md). Larger models lose less; training
afterwards wins some of it back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

_CUTS: Mapping[str, tuple[tuple[float, float], ...]] = {
    "dense": ((0.0, 1.0),),
    "width": ((0.0, 1.0), (0.2, 1.358)),
    "depth": ((0.0, 1.0), (0.1, 1.559), (0.267, 3.97)),
}
"""By kind: removed share (of the FFN neurons, of the blocks) and factor, ascending.

The logarithm of the factor is interpolated linearly.
"""
_STEEPER = 1.5


def factor(kind: str, share: float) -> tuple[float, bool]:
    """Return the expected factor on perplexity, and whether it lies within the measured range.

    kind: `dense`, `width` or `depth`. share: of neurons or of blocks that are removed. Beyond the
    measured range the factor is extrapolated.
    """
    points = [(place, math.log(value)) for place, value in _CUTS[kind]]
    loss = points[-1][1]
    inside = share <= points[-1][0]
    for (left, low), (right, high) in pairwise(points):
        if left <= share <= right:
            loss = low + (high - low) * (share - left) / (right - left)
    if not inside:
        (left, low), (right, high) = points[-2:]
        loss = high + _STEEPER * (high - low) / (right - left) * (share - right)
    return math.exp(loss), inside
