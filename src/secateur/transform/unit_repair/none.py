"""No repair: what leaves is missed."""

from __future__ import annotations

from secateur.transform.unit_repair import Cut, Repaired, unit_repair


@unit_repair("none")
def none(cut: Cut) -> Repaired:
    """Zero the weights of the inputs that leave."""
    return Repaired(cut.bare())
