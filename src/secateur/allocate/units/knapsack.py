"""Knapsack: remove the units whose measured errors add up to the least.

Greedy along curves of many cuts, and must free at least the budget; `allocate.bits` fills at most a budget
from a few options a weight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

from secateur.allocate.units import Curve, SpreadContext, budget_of, parameters_gone, spread

_WORST = 1e30
"""Stands for an infinite error, of which no slope can be taken."""


@spread("knapsack", needs={"errors"})
def knapsack(curves: Mapping[str, Curve], ratio: float, context: SpreadContext) -> dict[str, int]:
    """Spend the budget where one more parameter costs least, along each group's lower convex hull of errors.

    Optimal but for the last step, which ends at the first cut within its hull segment that meets the budget.
    Raises UsageError if the budget cannot be met.
    """
    return cheapest(curves, budget_of(curves, ratio))


def cheapest(curves: Mapping[str, Curve], budget: int) -> dict[str, int]:
    """Return the cuts of least total error that remove `budget` parameters, which must be possible."""
    cuts = {name: curve.cuts[0] for name, curve in curves.items()}
    missing = budget - parameters_gone(curves, cuts)
    segments = [segment for name, curve in curves.items() for segment in _hull(name, curve)]
    # slopes rise along a hull, so every group's segments come in order
    for _, name, start, end in sorted(segments):
        if missing <= 0:
            break
        curve = curves[name]
        enough = math.ceil(missing / curve.price / curve.align) * curve.align
        cuts[name] = min(end, start + enough)
        missing -= (cuts[name] - start) * curve.price
    return cuts


def _hull(name: str, curve: Curve) -> list[tuple[float, str, int, int]]:
    """Return the segments of the lower convex hull in order.

    Each is (error per parameter, group, cut before, cut after).
    """
    points = [(cut, min(curve.errors[cut], _WORST)) for cut in curve.cuts]
    hull: list[tuple[int, float]] = []
    for cut, error in points:
        while len(hull) > 1 and (hull[-1][1] - hull[-2][1]) * (cut - hull[-2][0]) >= (error - hull[-2][1]) * (
            hull[-1][0] - hull[-2][0]
        ):
            hull.pop()
        hull.append((cut, error))
    return [
        ((after[1] - before[1]) / (after[0] - before[0]) / curve.price, name, before[0], after[0])
        for before, after in pairwise(hull)
    ]
