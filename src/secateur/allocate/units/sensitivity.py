"""Sensitivity: remove the units whose errors, weighed by their effect on the predictions, are least."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from secateur.allocate.units import Curve, SpreadContext, budget_of, spread
from secateur.allocate.units.knapsack import cheapest


@spread("sensitivity", needs={"errors", "sensitivity"})
def sensitivity(curves: Mapping[str, Curve], ratio: float, context: SpreadContext) -> dict[str, int]:
    """Solve the knapsack over errors times `context.sensitivity`.

    An error early in the model may wash out or grow: one measurement for each group says which. Raises
    UsageError if the budget cannot be met.
    """
    budget = budget_of(curves, ratio)
    weighed = {
        name: replace(curve, errors=tuple(error * context.sensitivity[name] for error in curve.errors))
        for name, curve in curves.items()
    }
    return cheapest(weighed, budget)
