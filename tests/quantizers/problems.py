"""Grids that tests quantize to, and the error they measure."""

from __future__ import annotations

from torch import Tensor

from secateur.tensors.stats import LinearStats
from secateur_runtime.kernels.quantized import Codes, Grid

WIDTH = 96


def output_error(codes: Codes, weight: Tensor, stats: LinearStats) -> float:
    assert stats.gram is not None
    change = codes.dense() - weight
    return float((change @ stats.gram * change).sum())


GRIDS = [
    Grid(bits=bits, group=group, symmetric=symmetric)
    for bits, group in ((4, 32), (3, 16), (8, 48), (2, 96))
    for symmetric in (True, False)
]
