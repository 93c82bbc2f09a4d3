"""Ridge least squares: the weights of the retained inputs compensate for the removed ones."""

from __future__ import annotations

from secateur.transform.least_squares import refit
from secateur.transform.unit_repair import CutLinear, Repaired, unit_repair


@unit_repair("lsq", needs={"gram"}, paper="arXiv:2503.09657")
def lsq(cut: CutLinear) -> Repaired:
    """Solve for the weights of the retained inputs again; see `refit`."""
    return Repaired(refit(cut.weight, cut.stats, cut.kept))
