"""Round weights to a quantization grid: one method per file.

Every method lowers the mean squared change of a linear's output over the calibration tokens, as far as it
knows them, and keeps a weight that is zero at zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from secateur.tensors.moments import MOMENTS
from secateur_runtime.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from secateur.tensors.stats import LinearStats
    from secateur_runtime.kernels.quantized import Codes, Grid

Quantizer: TypeAlias = "Callable[[Tensor, LinearStats, Grid], Codes]"
"""`(weight, stats, grid) -> codes`: the weight `[out_features, in_features]`, float32, is not changed."""

JointQuantizer: TypeAlias = "Callable[[Tensor, LinearStats, Grid, Tensor], Codes]"
"""`(weight, stats, grid, pruned) -> codes`: the zeros of `pruned`, the weight after a solver, stay."""

QUANTIZERS: Registry[Quantizer] = Registry(
    "quantization method", "secateur.quantizers", "secateur.quantizers", needs=MOMENTS
)


def quantizer(
    name: str,
    *,
    needs: frozenset[str] | set[str] = frozenset(),
    joint: JointQuantizer | None = None,
    paper: str = "",
) -> Callable[[Quantizer], Quantizer]:
    """Return a decorator that registers a quantizer.

    needs: fields of `LinearStats` it reads.
    joint: the same for a weight that is pruned at once, where the method can; `--sparsity` asks for it.
    """
    return QUANTIZERS.register(name, needs=needs, paper=paper, trait=joint)


def joint_quantizers() -> dict[str, JointQuantizer]:
    """Return those that prune and round at once, by the name of the quantizer."""
    return {name: entry.trait for name, entry in QUANTIZERS.items() if entry.trait}
