"""No repair: nothing compensates for the removed inputs."""

from __future__ import annotations

from secateur.transform.unit_repair import CutLinear, Repaired, unit_repair


@unit_repair("none")
def none(cut: CutLinear) -> Repaired:
    """Zero the weights of the removed inputs."""
    return Repaired(cut.bare())
