"""Adapt-Pruner: the budget is spent in small steps, each spread by how much every layer still changes."""

from __future__ import annotations

from collections.abc import Mapping

from secateur.allocate.units import Curve, SpreadContext, budget_of, spread
from secateur.allocate.units.balance import balance, settle_cuts

AMPLITUDE = 2.0
"""How far apart the most and the least important layer move in a step, in units of the mean; the paper's at
50 % in 50 steps.
"""


@spread("adapt", needs={"influence", "measure"}, paper="arXiv:2502.03460")
def adapt(
    curves: Mapping[str, Curve], ratio: float, context: SpreadContext, steps: int = 8
) -> dict[str, int]:
    """Raise each group's share by the mean step less `AMPLITUDE` times its importance, `steps` times over.

    The importance of a group is its influence, less the mean over groups, over the largest of all; it is
    measured again before every step but the first. Raises UsageError if the budget cannot be met, ValueError
    if nothing can be measured.
    """
    budget = budget_of(curves, ratio)
    if context.measure is None:
        raise ValueError("the adapt spread needs context.measure")
    shares = dict.fromkeys(curves, 0.0)
    cuts = dict.fromkeys(curves, 0)
    influence = context.influence
    context.progress.start("spread widths", steps)
    for step in range(steps):
        if step:
            influence = context.measure(cuts).influence
        goal = budget * (step + 1) / steps
        shares = _raised(
            curves,
            shares,
            _importance({name: influence[name] for name in curves}),
            AMPLITUDE * ratio / steps,
            goal,
        )
        cuts = settle_cuts(curves, shares, round(goal))
        context.progress.step()
    return cuts


def _importance(influence: Mapping[str, float]) -> dict[str, float]:
    mean = sum(influence.values()) / len(influence)
    largest = max(abs(value - mean) for value in influence.values())
    return {name: (value - mean) / largest if largest else 0.0 for name, value in influence.items()}


def _raised(
    curves: Mapping[str, Curve],
    shares: Mapping[str, float],
    importance: Mapping[str, float],
    amplitude: float,
    goal: float,
) -> dict[str, float]:
    return balance(
        curves,
        lambda x: {name: share + x - amplitude * importance[name] for name, share in shares.items()},
        goal,
        -1 - amplitude,
        1 + amplitude,
    )
