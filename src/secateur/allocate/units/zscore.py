"""Z-score: scores are made comparable within each group, then one threshold holds for all."""

from __future__ import annotations

import heapq
import statistics
from collections.abc import Mapping

from secateur.allocate.units import Curve, SpreadContext, budget_of, parameters_gone, spread


@spread("zscore", paper="arXiv:2312.11983")
def zscore(curves: Mapping[str, Curve], ratio: float, context: SpreadContext) -> dict[str, int]:
    """Standardise the scores of each group, and remove the lowest of all until the budget is met.

    FLAP's adaptive spread (An et al., 2024); a unit counts with the parameters it holds. With an alignment a
    step has the mean score of its units. Raises UsageError if the budget cannot be met.
    """
    budget = budget_of(curves, ratio)
    cuts = {name: curve.cuts[0] for name, curve in curves.items()}
    missing = budget - parameters_gone(curves, cuts)
    scores = {name: _standardised(curve.scores) for name, curve in curves.items()}
    queue = [
        (_step(scores[name], curve, cuts[name]), name)
        for name, curve in curves.items()
        if cuts[name] < curve.cuts[-1]
    ]
    heapq.heapify(queue)
    while missing > 0:
        _, name = heapq.heappop(queue)
        curve = curves[name]
        cuts[name] += curve.align
        missing -= curve.align * curve.price
        if cuts[name] < curve.cuts[-1]:
            heapq.heappush(queue, (_step(scores[name], curve, cuts[name]), name))
    return cuts


def _standardised(scores: tuple[float, ...]) -> list[float]:
    mean = statistics.fmean(scores)
    deviation = statistics.pstdev(scores)
    return [(score - mean) / deviation if deviation else 0.0 for score in scores]


def _step(scores: list[float], curve: Curve, cut: int) -> float:
    return statistics.fmean(scores[cut : cut + curve.align])
