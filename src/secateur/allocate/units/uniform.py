"""Uniform: the same share of units from every group, so that the widths stay equal."""

from __future__ import annotations

from collections.abc import Mapping

from secateur.allocate.units import Curve, SpreadContext, check_cuts, spread


@spread("uniform")
def uniform(curves: Mapping[str, Curve], ratio: float, context: SpreadContext) -> dict[str, int]:
    """Cut every group as near to `ratio` of its units as its alignment and its least width allow.

    Raises UsageError if a group has no allowed width.
    """
    check_cuts(curves)
    return {name: _nearest(curve, ratio * curve.size) for name, curve in curves.items()}


def _nearest(curve: Curve, wanted: float) -> int:
    return min(curve.cuts, key=lambda cut: abs(cut - wanted))
