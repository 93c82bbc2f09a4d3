"""How a sparsity budget is spread over the tensors of a model: one method per file.

A method is built for a budget, shown every prunable block of the dense model once, and then asked for each
tensor's ratio.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol, TypeAlias

from secateur.tensors.moments import MOMENTS
from secateur_runtime.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from secateur.core.graph import Linear
    from secateur.tensors.layer_stream import LiveBlock
    from secateur.tensors.stats import LinearStats

Scorer: TypeAlias = "Callable[[Tensor, LinearStats], Tensor]"


class Allocation(Protocol):
    """Spreads one budget over tensors."""

    def observe(
        self, block: LiveBlock, linears: tuple[Linear, ...], stats: Mapping[str, LinearStats], hidden: Tensor
    ) -> None:
        """Look at one dense block.

        linears: the prunable ones. stats: tensor name -> moments of its inputs. hidden: one batch of the
        block's input, `[windows, tokens, hidden_size]`.
        """

    def ratios(self) -> dict[str, float]:
        """Return tensor name -> ratio of zeros; the mean over all weights is the budget."""


ALLOCATIONS: Registry[Callable[[float, Scorer], Allocation]] = Registry(
    "allocation", "secateur.allocate", "secateur.allocations", needs=MOMENTS
)
allocation = ALLOCATIONS.register


def settle(
    wanted: Mapping[str, float], sizes: Mapping[str, int], budget: float, most: float = 0.99
) -> dict[str, float]:
    """Shift all ratios by one constant so that their mean over all weights is the budget.

    wanted: tensor name -> ratio; sizes: tensor name -> number of weights. The result stays within
    [0, `most`]; for a budget up to `most` a shift always exists.
    """
    low = -1.0
    high = 1.0
    total = sum(sizes.values())
    for _ in range(60):
        shift = (low + high) / 2
        mean = sum(sizes[name] * min(max(ratio + shift, 0.0), most) for name, ratio in wanted.items()) / total
        low, high = (shift, high) if mean < budget else (low, shift)
    return {name: min(max(ratio + high, 0.0), most) for name, ratio in wanted.items()}
