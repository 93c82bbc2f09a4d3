"""Weights of every kind, what they are in float64, and how far a product may be from that."""

from __future__ import annotations

import torch
from torch import Tensor

from secateur_runtime.kernels.bitmask import CHUNK, Packed, pack
from secateur_runtime.kernels.quantized import Codes, Grid

KINDS = ("f32", "bf16", "int8", "int4", "bf16_sparse", "int8_sparse", "int4_sparse")
Stored = Tensor | Codes | Packed
STEPS = 32512.0
"""SEC_INPUT_TOP of kernels.h."""


def weight(
    kind: str, rows: int, columns: int, *, share: float = 0.5, group: int = 0, seed: int = 0
) -> Stored:
    """Return a weight of which `share` is zero.

    The first row is empty and the last full, where there are three.
    """
    random = torch.Generator().manual_seed(seed)
    keep = torch.rand(rows, columns, generator=random) >= share
    if rows > 2:
        keep[0], keep[-1] = False, True
    kind, _, sparse = kind.partition("_")
    if kind in ("f32", "bf16"):
        numbers = torch.randn(rows, columns, generator=random) * keep
        return numbers if kind == "f32" else pack(numbers.bfloat16()) if sparse else numbers.bfloat16()
    grid = Grid(bits=int(kind[3:]), group=group or columns)
    values = (
        torch.randint(grid.lowest, grid.highest + 1, (rows, columns), generator=random).to(torch.int8) * keep
    )
    scales = torch.rand(rows, columns // grid.group, generator=random).half() / 64 + 0.001
    codes = Codes(grid, values, scales)
    return pack(codes) if sparse else codes


def dense(weight: Stored) -> Tensor:
    """Return a weight in float64."""
    return (weight if isinstance(weight, Tensor) else weight.dense()).double()


def inputs(count: int, columns: int, seed: int = 0) -> Tensor:
    """Return inputs with a few large values among small ones, as hidden states have."""
    random = torch.Generator().manual_seed(seed)
    made = torch.randn(count, columns, generator=random)
    made[:, :: max(1, columns // 3)] *= 20
    return made


def rounded(kind: str, x: Tensor, isa: str) -> Tensor:
    """Return the inputs that a kernel really multiplies, float64.

    Of integer kinds each 64 share a scale of 32,512 steps; pairs of bfloat16 hold an input as the sum of two.
    """
    if kind.startswith("int"):
        columns = x.shape[1]
        padded = torch.nn.functional.pad(x, (0, -columns % CHUNK)).view(len(x), -1, CHUNK)
        top = padded.abs().amax(-1, keepdim=True)
        # The same single-precision steps as the kernels': a tie may not fall to the other side.
        codes = torch.where(top > 0, padded * (STEPS / top), 0.0).round()
        return (codes.double() * (top / STEPS).double()).flatten(1)[:, :columns]
    if kind.startswith("bf16") and isa.endswith("bf16"):
        nearest = x.bfloat16()
        return nearest.double() + (x - nearest.float()).bfloat16().double()
    return x.double()


def slack(weight: Stored, x: Tensor) -> Tensor:
    """Return how far float32 sums may be from exact ones.

    In proportion to the sum of sizes, codes standing 128 or 8 above zero.
    """
    above = torch.zeros(1, dtype=torch.float64)
    if not isinstance(weight, Tensor):
        scales = weight.scales
        above = above if scales is None else 256 * scales.double().amax(1)
    return 2e-6 * (x.abs() @ dense(weight).abs().T + x.abs().sum(1, keepdim=True) * above) + 1e-30
