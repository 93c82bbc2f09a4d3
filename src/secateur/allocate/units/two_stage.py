"""2SSP: remove a few whole attention sub-blocks, and the rest of the budget from every layer's FFN alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from secateur.allocate.units import Curve, SpreadContext, budget_of, parameters_gone, spread

ALPHA = 1.5


@dataclass(frozen=True, slots=True)
class Stages:
    """What each stage removes: so many attention sub-blocks, and `ffn_ratio` of the neurons."""

    attention: int
    ffn_ratio: float


def stages(blocks: int, ratio: float, ffn: int, attention: int) -> Stages:
    """Return how 2SSP divides the budget `ratio` of all block parameters between the two stages.

    ffn, attention: parameters of one sub-block. The first stage removes
    `blocks · ratio^(ffn / attention / ALPHA)` attention sub-blocks, rounded. Sandri et al., 2025.
    """
    count = round(blocks * ratio ** (ffn / attention / ALPHA))
    return Stages(count, max(ratio * blocks * (ffn + attention) - count * attention, 0) / (blocks * ffn))


@spread("2ssp", paper="arXiv:2501.17771")
def two_stage(curves: Mapping[str, Curve], ratio: float, context: SpreadContext) -> dict[str, int]:
    """Cut every group by the least common share that meets the budget; a group at its limit stays there.

    The removal of attention sub-blocks is a choice of depth and not made here; `stages` divides the budget.
    Raises UsageError if the budget cannot be met.
    """
    budget = budget_of(curves, ratio)
    candidates = sorted({cut / curve.size for curve in curves.values() for cut in curve.cuts})
    low = 0
    high = len(candidates) - 1
    while low < high:
        middle = (low + high) // 2
        enough = parameters_gone(curves, _common(curves, candidates[middle])) >= budget
        low, high = (low, middle) if enough else (middle + 1, high)
    return _common(curves, candidates[low])


def _common(curves: Mapping[str, Curve], share: float) -> dict[str, int]:
    return {
        name: next((cut for cut in curve.cuts if cut / curve.size >= share), curve.cuts[-1])
        for name, curve in curves.items()
    }
