"""From wanted shares to whole units: steps of the alignment, until the budget is met."""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Callable, Mapping

from secateur.allocate.units import Curve, parameters_gone

_HALVINGS = 60


def settle_cuts(curves: Mapping[str, Curve], wanted: Mapping[str, float], budget: int) -> dict[str, int]:
    """Return allowed cuts near the wanted shares that remove at least `budget` parameters.

    wanted: group name -> share of its units to remove. Cuts start at the next lower allowed number; the
    groups furthest below their wanted share then lose one more step each, until the budget is met. The budget
    must be one that `check_budget` accepts.
    """
    cuts = {name: lower(curve, wanted[name] * curve.size) for name, curve in curves.items()}
    missing = budget - parameters_gone(curves, cuts)
    queue = [
        (-(wanted[name] * curve.size - cuts[name]) / curve.align, name) for name, curve in curves.items()
    ]
    heapq.heapify(queue)
    while missing > 0:
        surplus, name = heapq.heappop(queue)
        curve = curves[name]
        if cuts[name] < curve.cuts[-1]:
            cuts[name] += curve.align
            missing -= curve.align * curve.price
            heapq.heappush(queue, (surplus + 1, name))
    return cuts


def lower(curve: Curve, wanted: float) -> int:
    """Return the greatest allowed cut that is at most `wanted`, or the least allowed one."""
    return curve.cuts[max(bisect_right(curve.cuts, wanted) - 1, 0)]


def balance(
    curves: Mapping[str, Curve],
    wanted: Callable[[float], Mapping[str, float]],
    budget: float,
    low: float,
    high: float,
) -> dict[str, float]:
    """Return the shares `wanted(x)`, clamped to what each group can lose, for the x that spends the budget.

    wanted: shares that do not fall as x grows from `low`, where they spend too little, to `high`.
    budget: parameters to remove.
    """
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        spent = sum(
            share * curves[name].size * curves[name].price
            for name, share in _within(curves, wanted(middle)).items()
        )
        low, high = (middle, high) if spent < budget else (low, middle)
    return _within(curves, wanted(high))


def _within(curves: Mapping[str, Curve], shares: Mapping[str, float]) -> dict[str, float]:
    return {
        name: min(max(shares[name], curve.cuts[0] / curve.size), curve.cuts[-1] / curve.size)
        for name, curve in curves.items()
    }
