"""Uniform: the same share of units from every group, so that the widths stay equal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from secateur.allocate.units import Curve, SpreadContext, check_cuts, spread


@spread("uniform")
def uniform(curves: Mapping[str, Curve], ratio: float, context: SpreadContext) -> dict[str, int]:
    """Cut every group as near to `ratio` of its units as its alignment and its least width allow.

    Raises UsageError if a group has no allowed width.
    """
    check_cuts(curves)
    return {name: _nearest(curve, ratio * curve.size) for name, curve in curves.items()}


def uniform_cuts(curves: Mapping[str, Curve], ratio: float, align: int) -> dict[str, int]:
    """Return the uniform cuts with one alignment for all groups; raises UsageError as `uniform` does."""
    return uniform({name: replace(curve, align=align) for name, curve in curves.items()}, ratio, SpreadContext())


def _nearest(curve: Curve, wanted: float) -> int:
    return min(curve.cuts, key=lambda cut: abs(cut - wanted))
