"""Repairs of a linear that loses inputs, one per file: the remaining weights compensate for the removed ones.

Every repair lowers `E |W' x + b - W x|²` over the calibration tokens, where `W'` is zero at the removed
inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from secateur.tensors.moments import MOMENTS
from secateur_runtime.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from secateur.tensors.stats import LinearStats


@dataclass(frozen=True, slots=True)
class CutLinear:
    """A linear that loses some of its inputs.

    weight: `[out_features, in_features]`, float32.
    stats: moments of its inputs.
    kept: indices of the retained inputs.
    biased: the linear can hold an output bias.
    """

    weight: Tensor
    stats: LinearStats
    kept: Tensor
    biased: bool

    def bare(self) -> Tensor:
        """Return the weight with zeros at the removed inputs."""
        left = self.weight.new_zeros(self.weight.shape)
        left[:, self.kept] = self.weight[:, self.kept]
        return left


class Repaired(NamedTuple):
    """A repaired linear.

    weight: `[out_features, in_features]`, zero at the removed inputs.
    shift: what is added to its bias, `[out_features]`, or None for nothing.
    """

    weight: Tensor
    shift: Tensor | None = None


UnitRepair = Callable[[CutLinear], Repaired]
"""Pure; raises SecateurError if a statistic it needs was not collected or is unusable."""

Bias = Literal["none", "may", "must"]

UNIT_REPAIRS: Registry[UnitRepair] = Registry(
    "repair of units", "secateur.transform.unit_repair", "secateur.unit_repairs", needs=MOMENTS
)


def unit_repair(
    name: str, *, bias: Bias = "none", needs: frozenset[str] | set[str] = frozenset(), paper: str = ""
) -> Callable[[UnitRepair], UnitRepair]:
    """Return a decorator that registers a repair of units.

    bias: whether it must have an output bias to fill, may use one, or uses none.
    needs: fields of `LinearStats` it reads.
    """
    return UNIT_REPAIRS.register(name, needs=needs, paper=paper, trait=bias)


def bias_for(name: str) -> Bias:
    """Return whether a repair fills an output bias; raises UsageError for an unknown repair."""
    bias: Bias = UNIT_REPAIRS[name].trait
    return bias
