"""Round weights to a quantization grid: one method per file.

Every method lowers the mean squared change of a linear's output over the calibration tokens, as far as it
knows them, and keeps a weight that is zero at zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from secateur_runtime.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from secateur.tensors.stats import LinearStats
    from secateur_runtime.kernels.quantized import Codes, Grid

Quantizer: TypeAlias = "Callable[[Tensor, LinearStats, Grid], Codes]"
"""`(weight, stats, grid) -> codes`: the weight `[out_features, in_features]`, float32, is not changed."""

QUANTIZERS: Registry[Quantizer] = Registry(
    "quantization method", "secateur.quantizers", "secateur.quantizers"
)
quantizer = QUANTIZERS.register
