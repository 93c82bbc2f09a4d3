"""How many units each group loses, so that the measured errors add up to the least."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

from secateur.core.errors import UsageError


@dataclass(frozen=True, slots=True)
class Curve:
    """What it costs a group to lose units.

    errors: relative output error after 0, 1, ... units have left; the last unit never leaves.
    price: parameters that one unit holds.
    """

    errors: tuple[float, ...]
    price: int

    @property
    def size(self) -> int:
        """Number of units."""
        return len(self.errors) - 1


def uniform_cuts(curves: Mapping[str, Curve], ratio: float, align: int) -> dict[str, int]:
    """Return the same share of units to lose for every group, rounded so that what stays is a multiple of `align`.

    Raises UsageError if a group of that size cannot lose that share.
    """
    cuts = {}
    for name, curve in curves.items():
        stay = max(align, round(curve.size * (1 - ratio) / align) * align)
        if stay > curve.size:
            raise UsageError(f"{name} has {curve.size} units, which leaves no multiple of --align {align}")
        cuts[name] = curve.size - stay
    return cuts


def cheapest_cuts(curves: Mapping[str, Curve], budget: int, align: int, most: float = 0.75) -> dict[str, int]:
    """Return how many units each group loses so that at least `budget` parameters go at the least total error.

    Units leave in steps that keep what stays a multiple of `align`; no group loses more than `most` of its units. Raises
    UsageError naming the nearest reachable number if the budget cannot be met.
    """
    cuts = dict.fromkeys(curves, 0)
    steps = [_step(name, curve, 0, align, most) for name, curve in curves.items()]
    queue = [step for step in steps if step]
    heapq.heapify(queue)
    gone = 0
    while gone < budget:
        if not queue:
            raise UsageError(f"{budget:,} parameters cannot go: at most {gone:,} of these units can, keep more or name more --units")
        _, name, count = heapq.heappop(queue)
        gone += (count - cuts[name]) * curves[name].price
        cuts[name] = count
        following = _step(name, curves[name], count, align, most)
        if following:
            heapq.heappush(queue, following)
    return cuts


def _step(name: str, curve: Curve, count: int, align: int, most: float) -> tuple[float, str, int] | None:
    """Return (error added per parameter, group, units gone) of a group's next step, or None at its end."""
    stay = (curve.size - count - 1) // align * align
    if stay < max(align, 1, curve.size * (1 - most)):
        return None
    after = curve.size - stay
    return (curve.errors[after] - curve.errors[count]) / ((after - count) * curve.price), name, after
