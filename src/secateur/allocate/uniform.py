"""The same ratio for every tensor."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from secateur.allocate import Scorer, allocation
from secateur.core.graph import Linear
from secateur.tensors.layer_stream import LiveBlock
from secateur.tensors.stats import LinearStats


@allocation("uniform")
class Uniform:
    """Give every tensor the budget itself."""

    def __init__(self, budget: float, scorer: Scorer) -> None:
        self._budget = budget
        self._names: list[str] = []

    def observe(
        self, block: LiveBlock, linears: tuple[Linear, ...], stats: Mapping[str, LinearStats], hidden: Tensor
    ) -> None:
        """Take note of the names."""
        self._names += [linear.tensor for linear in linears]

    def ratios(self) -> dict[str, float]:
        """Return the budget for every tensor seen."""
        return dict.fromkeys(self._names, self._budget)
