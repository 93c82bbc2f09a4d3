"""SlimLLM: a layer loses more units the less it turns the hidden states."""

from __future__ import annotations

import math
from collections.abc import Mapping

from secateur.allocate.units import Curve, SpreadContext, budget_of, spread
from secateur.allocate.units.balance import balance, settle_cuts

ALPHA = 10.0
"""Sharpness; the paper's value for 20 %, 7 for 50 %."""


@spread("slimllm", needs={"influence"}, paper="arXiv:2505.22689")
def slimllm(curves: Mapping[str, Curve], ratio: float, context: SpreadContext) -> dict[str, int]:
    """Give each of n groups the share `r · n · softmax(ALPHA · cos(x_in, x_out))`, no more than it can lose.

    r is the ratio itself where groups weigh the same and none is at its limit. Guo et al., 2025. Raises
    UsageError if the budget cannot be met.
    """
    budget = budget_of(curves, ratio)
    powers = {name: math.exp(-ALPHA * context.influence[name]) for name in curves}
    total = sum(powers.values())
    weights = {name: len(powers) * power / total for name, power in powers.items()}
    shares = balance(
        curves,
        lambda r: {name: r * weight for name, weight in weights.items()},
        budget,
        0.0,
        1 / min(weights.values()),
    )
    return settle_cuts(curves, shares, budget)
