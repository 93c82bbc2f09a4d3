"""No repair: what leaves is missed."""

from __future__ import annotations

from secateur.transform.unit_repair import CutLinear, Repaired, unit_repair


@unit_repair("none")
def none(cut: CutLinear) -> Repaired:
    """Zero the weights of the inputs that leave."""
    return Repaired(cut.bare())
