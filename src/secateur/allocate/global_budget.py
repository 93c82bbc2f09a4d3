"""Global: the scores of all tensors compete for one budget."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from secateur.allocate import Scorer, allocation, settle
from secateur.core.graph import Linear
from secateur.tensors.layer_stream import LiveBlock
from secateur.tensors.stats import LinearStats
from secateur_runtime.errors import SecateurError

_BIN_SHIFT = 15
_BINS = 1 << (31 - _BIN_SHIFT)


@allocation("global")
class Global:
    """Prune the lowest scores wherever they are, holding one histogram per tensor."""

    def __init__(self, budget: float, scorer: Scorer) -> None:
        self._budget = budget
        self._scorer = scorer
        self._counts: dict[str, Tensor] = {}

    def observe(
        self, block: LiveBlock, linears: tuple[Linear, ...], stats: Mapping[str, LinearStats], hidden: Tensor
    ) -> None:
        """Count the scores of each tensor; raises SecateurError if one is negative or not a number."""
        for linear in linears:
            self._counts[linear.tensor] = _histogram(
                linear.tensor, self._scorer(block.weight(linear.tensor), stats[linear.tensor])
            )

    def ratios(self) -> dict[str, float]:
        """Return each tensor's share of scores below the common threshold (bins are 0.4 % wide)."""
        total = torch.stack(list(self._counts.values())).sum(dim=0)
        wanted = self._budget * float(total.sum())
        below = total.cumsum(dim=0)
        cut = int((below < wanted).sum().clamp_max(_BINS - 1))
        share = (wanted - float(below[cut] - total[cut])) / max(float(total[cut]), 1.0)
        sizes = {name: int(count.sum()) for name, count in self._counts.items()}
        pruned = {
            name: float(count[:cut].sum()) + share * float(count[cut]) for name, count in self._counts.items()
        }
        return settle({name: pruned[name] / sizes[name] for name in sizes}, sizes, self._budget)


def _histogram(name: str, saliency: Tensor) -> Tensor:
    """Count scores by the leading bits of their float32 form, which order like the scores."""
    score = saliency.float().contiguous()
    if not bool((score >= 0).all()):
        raise SecateurError(f"saliency of {name} is negative or not a number somewhere")
    # Adding zero turns -0.0, whose bits order last, into 0.0.
    bits = (score + 0.0).view(torch.int32) >> _BIN_SHIFT
    return torch.bincount(bits.flatten(), minlength=_BINS)
