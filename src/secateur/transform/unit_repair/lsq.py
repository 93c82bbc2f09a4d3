"""Ridge least squares: the surviving inputs answer for the others."""

from __future__ import annotations

from secateur.transform.least_squares import refit
from secateur.transform.unit_repair import CutLinear, Repaired, unit_repair


@unit_repair("lsq", needs={"gram"}, paper="arXiv:2503.09657")
def lsq(cut: CutLinear) -> Repaired:
    """Solve for the weights of the surviving inputs anew; see `refit`."""
    return Repaired(refit(cut.weight, cut.stats, cut.kept))
