"""Quantized weights: integer codes in groups that share a scale, and their quantization grids."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur_runtime.errors import UsageError

BITS = range(2, 9)
_NAME = re.compile(r"int([2-8])(a?)-g(\d{1,6})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The values that a quantized weight may take: `scale * (code - zero)`.

    bits: bits of a code. group: inputs of a row that share a scale.
    symmetric: whether `zero` is 0 everywhere. The scale may then be negative, so that the side with one more
    code lies where it is needed.
    """

    bits: int = 4
    group: int = 32
    symmetric: bool = True

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise UsageError(f"{self.bits} bits: a quantized weight has {BITS[0]} to {BITS[-1]}")
        if self.group < 1:
            raise UsageError(f"groups of {self.group} inputs: a group has at least one")

    @classmethod
    def parse(cls, name: str) -> Grid:
        """Return the grid of a name such as `int4-g32` or `int4a-g32`; raises UsageError for another."""
        found = _NAME.fullmatch(name)
        if not found:
            raise UsageError(f"{name!r} is not a grid such as int4-g32, or int4a-g32 for an asymmetric one")
        return cls(bits=int(found[1]), symmetric=not found[2], group=int(found[3]))

    @property
    def lowest(self) -> int:
        """The lowest code; -127 for symmetric bytes, to fit the integer kernels of every runtime."""
        return -127 if self.symmetric and self.bits == 8 else -(1 << (self.bits - 1))

    @property
    def highest(self) -> int:
        """The highest code."""
        return (1 << (self.bits - 1)) - 1

    @property
    def bits_per_weight(self) -> float:
        """Bits of a weight, its share of scale and zero included."""
        return self.bits + (16 + (0 if self.symmetric else self.bits)) / self.group

    def check(self, tensor: str, in_features: int) -> None:
        """Raise UsageError if rows of `in_features` are not whole groups."""
        if in_features % self.group:
            raise UsageError(
                f"{tensor} has {in_features} inputs, which is not a multiple of the group of {self.group}:"
                " choose another --group"
            )

    def __str__(self) -> str:
        return f"int{self.bits}{'' if self.symmetric else 'a'}-g{self.group}"


@dataclass(frozen=True, slots=True)
class Codes:
    """A quantized weight.

    values: codes, `[out_features, in_features]`, int8. scales: `[out_features, groups]`, float16.
    zeros: codes that stand for 0, `[out_features, groups]`, int8; None for a symmetric grid.
    """

    grid: Grid
    values: Tensor
    scales: Tensor
    zeros: Tensor | None = None

    def dense(self) -> Tensor:
        """Return the weight, `[out_features, in_features]`, float32.

        The result is exact, because code and scale together have less than 24 bits.
        """
        grouped = self.values.view(len(self.values), -1, self.grid.group).float()
        if self.zeros is not None:
            grouped = grouped - self.zeros[..., None]
        return (grouped * self.scales.float()[..., None]).view(self.values.shape)

    def split(self, rows: Sequence[int]) -> list[Codes]:
        """Return the codes of consecutive parts with the given numbers of rows, which sum to all rows."""
        parts = list[Codes]()
        start = 0
        for count in rows:
            here = slice(start, start + count)
            zeros = None if self.zeros is None else self.zeros[here].clone()
            parts.append(Codes(self.grid, self.values[here].clone(), self.scales[here].clone(), zeros))
            start += count
        return parts

    @property
    def nbytes(self) -> int:
        """Bytes of the packed weight."""
        zeros = (
            0
            if self.zeros is None
            else packed_words(self.zeros.shape[0], self.grid.bits) * 4 * self.zeros.shape[1]
        )
        rows, columns = self.values.shape
        return 4 * rows * packed_words(columns, self.grid.bits) + self.scales.nbytes + zeros


def usual_grid(bits: int, columns: int) -> Grid:
    """Return the default symmetric grid of a weight with `columns` inputs.

    A group has 64 inputs; 32 if there are at most 4 bits or 64 does not divide the row; else the whole row.
    """
    groups = (64, 32) if bits > 4 else (32,)
    return Grid(bits=bits, group=next((group for group in groups if columns % group == 0), columns))


def packed_words(count: int, bits: int) -> int:
    """Return the number of 32-bit words that `count` codes take."""
    return -(-count * bits // 32)


def exact_scales(scales: Tensor, bits: int) -> Tensor:
    """Return scales rounded so that a product with a code of `bits` bits is exact in float16; float32."""
    mantissa, exponent = torch.frexp(scales.float())
    digits = 1 << (11 - bits)
    return torch.ldexp((mantissa * digits).round() / digits, exponent)
