"""The best fixed plan for a whole trace, chosen in hindsight: the baseline of adaptive policies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from secateur_runtime.ladder_costs import Choices, Decision, Observation
from secateur_runtime.policies import Policy
from secateur_runtime.policies.knapsack import Knapsack


def static_plan(choices: Choices, moments: Sequence[Observation]) -> Decision:
    """Return the decision of least loss (`Choices.loss`) that fits at every moment.

    This is a level or the cheapest set of steps; all steps if none fits.
    """
    needs = np.array([choices.needs(seen) - seen.available for seen in moments])
    fitting = np.flatnonzero((needs <= 0).all(0))
    chosen = Knapsack(choices).for_all(moments)
    if not len(fitting):
        return chosen
    level = choices.level(int(min(fitting, key=lambda level: choices.losses[level])), moments[0])
    return min(level, chosen, key=lambda decision: choices.loss(choices.mask(decision.units)))


def always(choices: Choices, decision: Decision) -> Policy:
    """Return the policy that decides the same at every moment."""
    mask = choices.mask(decision.units)

    def decide(seen: Observation) -> Decision:
        return Decision(decision.units, decision.level, choices.need(mask, seen))

    return decide
