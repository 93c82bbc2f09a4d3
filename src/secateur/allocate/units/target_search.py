"""How much has to be removed so that a target is met, and no more."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from secateur.allocate.units import Curve, parameters_gone
from secateur.core.footprint import Footprint
from secateur.core.target import Target, refuse_if_met
from secateur_runtime.errors import UnreachableTargetError

_HALVINGS = 26
"""Down to a share of 1e-8: less than a unit of any model there is."""
_FIRST_STEP = 0.004

Cuts = dict[str, int]
Size = Callable[[Mapping[str, int]], Footprint]


def meet(
    target: Target,
    curves: Mapping[str, Curve],
    spread: Callable[[float], Cuts],
    size: Size,
    *,
    whole: Footprint,
    highest: float,
    costly: bool,
) -> Cuts:
    """Return the cuts that `spread` makes for the least ratio at which the model meets `target`.

    size: returns the footprint of the model with the given cuts.
    whole: footprint of the model as it is.
    highest: ratio beyond which `spread` has nothing to cut.
    costly: a call of `spread` takes minutes, so there are few, and a little more than needed may be removed.

    Raises UsageError if nothing has to be removed, TargetError naming the nearest target if not enough can.
    """
    refuse_if_met(target, whole, with_bytes=True)
    most = {name: curve.cuts[-1] for name, curve in curves.items()}
    least = size(most)
    if not target.met(least, whole):
        near = f"the nearest is {target.nearest(least, whole)}" if least != size({}) else "nothing can go"
        raise UnreachableTargetError(
            f"{target} is out of reach with these --units, --protect, --layers, --keep-heads and --align:"
            f" {near}"
        )

    def met(cuts: Mapping[str, int]) -> bool:
        return target.met(size(cuts), whole)

    if not costly:
        return _bisected(spread, met, highest) or most
    # How much has to be removed hardly depends on where: equal shares find the ratio, the spread itself
    # refines it.
    ratio = _ratio_of_alike(curves, met, highest)
    step = _FIRST_STEP
    while ratio < highest:
        cuts = spread(ratio)
        if met(cuts):
            return cuts
        ratio = ratio + step
        step = 2 * step
    return most


def _bisected(
    spread: Callable[[float], Cuts], met: Callable[[Mapping[str, int]], bool], highest: float
) -> Cuts | None:
    """Return the cuts of the least ratio below `highest` that are enough; None if none is."""
    low = 0.0
    high = highest
    found = None
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        cuts = spread(middle)
        if met(cuts):
            high = middle
            found = cuts
        else:
            low = middle
    return found


def _ratio_of_alike(
    curves: Mapping[str, Curve], met: Callable[[Mapping[str, int]], bool], highest: float
) -> float:
    def alike(ratio: float) -> Cuts:
        return {
            name: max((cut for cut in curve.cuts if cut <= ratio * curve.size), default=curve.cuts[0])
            for name, curve in curves.items()
        }

    low = 0.0
    high = 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if met(alike(middle)) else (middle, high)
    total = sum(curve.size * curve.price for curve in curves.values())
    return min(parameters_gone(curves, alike(high)) / total, highest)
