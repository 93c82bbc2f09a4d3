"""Sparse weights as a bitmask of the non-zeros and the non-zero values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateur_runtime.errors import SourceError, UsageError
from secateur_runtime.kernels.quantized import Codes, Grid

CHUNK = 64
"""Columns to which the rows of a mask are padded."""
KINDS = ("bf16", "int8", "int4")


@dataclass(frozen=True, slots=True)
class Packed:
    """A weight without its zeros.

    shape: rows and columns of the weight. grid: its quantization grid; None for bfloat16.
    mask: `[rows, 8 * chunks of 64 columns]`, uint8; bit j % 8 of byte j // 8 is set where column j is not
    zero.
    counts: non-zeros of each row, int32. scales: `[rows, groups]`, float16; None for bfloat16.
    values: the non-zeros, row after row: bfloat16; or codes + 128, uint8, for grids of more than 4 bits; or
    codes + 8, two in a byte, the low nibble first, each row beginning with a new byte.
    """

    shape: tuple[int, int]
    grid: Grid | None
    mask: Tensor
    counts: Tensor
    values: Tensor
    scales: Tensor | None = None

    @property
    def kind(self) -> str:
        """Return `bf16`, `int8` or `int4`: how the values are stored."""
        return kind_of(self.grid)

    @property
    def nbytes(self) -> int:
        """Bytes of all parts."""
        return sum(
            part.nbytes for part in (self.mask, self.counts, self.values, self.scales) if part is not None
        )

    def offsets(self) -> Tensor:
        """Return where each row begins in the values and where the last one ends, `[rows + 1]` int64.

        Offsets count weights, not bytes.
        """
        spans = self.counts.long()
        return torch.cat(
            [spans.new_zeros(1), torch.cumsum(spans + spans % 2 if self.kind == "int4" else spans, 0)]
        )

    def dense(self) -> Tensor:
        """Return the exact dense weight: bfloat16, or float32 from codes."""
        codes = self.codes()
        return codes if isinstance(codes, Tensor) else codes.dense()

    def codes(self) -> Codes | Tensor:
        """Return the weight as codes with their scales, or as bfloat16 if it is not quantized."""
        keep = torch.from_numpy(self._keep())
        if self.grid is None or self.scales is None:
            dense = torch.zeros(self.shape, dtype=torch.bfloat16)
            dense[keep] = self.values
            return dense
        values = torch.zeros(self.shape, dtype=torch.int8)
        values[keep] = self._kept_codes()
        return Codes(self.grid, values, self.scales)

    def check(self, name: str) -> None:
        """Raise SourceError, naming the weight, unless all parts fit each other.

        The kernels read and write within bounds for every weight that passes.
        """
        problem = self._misshapen() or self._miscounted()
        if problem:
            raise SourceError(f"{name} is damaged: {problem}; write or get the file again")

    def _misshapen(self) -> str:
        rows, columns = self.shape
        if rows < 1 or columns < 1:
            return f"a shape of {rows} x {columns}"
        chunks = -(-columns // CHUNK)
        wanted: list[tuple[str, Tensor | None, torch.dtype, tuple[int, ...]]] = [
            ("mask", self.mask, torch.uint8, (rows, 8 * chunks)),
            ("counts", self.counts, torch.int32, (rows,)),
        ]
        if self.grid is not None:
            if columns % self.grid.group or not self.grid.symmetric:
                return f"a grid {self.grid} over {columns} columns"
            wanted.append(("scales", self.scales, torch.float16, (rows, columns // self.grid.group)))
        for what, part, dtype, shape in wanted:
            if part is None or part.dtype != dtype or part.shape != shape:
                return (
                    f"its {what} are {'missing' if part is None else f'{part.dtype} {list(part.shape)}'}, not"
                    f" {dtype} {list(shape)}"
                )
        wrong = (
            self.values.dtype != (torch.bfloat16 if self.grid is None else torch.uint8)
            or self.values.dim() != 1
        )
        return f"its values are {self.values.dtype} {list(self.values.shape)}" if wrong else ""

    def _miscounted(self) -> str:
        bits = self.mask.numpy()
        columns = self.shape[1]
        if np.unpackbits(bits[:, columns // 8 :], axis=1, bitorder="little")[:, columns % 8 :].any():
            return "its mask keeps columns that it does not have"
        found = np.bitwise_count(bits).sum(1, dtype=np.int64)
        if wrong := np.flatnonzero(found != self.counts.numpy()).tolist():
            return (
                f"the mask of row {wrong[0]} keeps {found[wrong[0]]} weights, and {self.counts[wrong[0]]} are"
                " counted"
            )
        end = int(self.offsets()[-1])
        held = len(self.values) * (2 if self.kind == "int4" else 1)
        if end != held:
            return f"its mask keeps {end} values, and it holds {held}"
        return (
            ""
            if self.scales is None or bool(torch.isfinite(self.scales).all())
            else "its scales are not finite"
        )

    def _keep(self) -> NDArray[np.bool_]:
        bits = np.unpackbits(self.mask.numpy(), axis=1, bitorder="little", count=self.shape[1])
        return bits.view(np.bool_)

    def _kept_codes(self) -> Tensor:
        if self.kind == "int8":
            return (self.values.to(torch.int16) - 128).to(torch.int8)
        nibbles = torch.stack([self.values & 15, self.values >> 4], 1).flatten()
        return nibbles[_places(self.counts, self.offsets())].to(torch.int8) - 8


def kind_of(grid: Grid | None) -> str:
    """Return `bf16`, `int8` or `int4`: how weights on a grid are stored."""
    return "bf16" if grid is None else "int8" if grid.bits > 4 else "int4"


def pack(weight: Tensor | Codes) -> Packed:
    """Return a weight without its zeros; raises UsageError if that cannot be exact.

    weight: `[rows, columns]`, numbers that bfloat16 can represent, or codes of a symmetric grid.
    """
    grid = weight.grid if isinstance(weight, Codes) else None
    if grid is not None and not grid.symmetric:
        raise UsageError(
            f"weights on the grid {grid} have no code that is always zero: quantize without"
            " --asymmetric to leave zeros out"
        )
    numbers = weight.values if isinstance(weight, Codes) else weight.to(torch.bfloat16)
    if isinstance(weight, Tensor) and not torch.equal(numbers.to(weight.dtype), weight):
        raise UsageError("these weights are finer than bfloat16: round them first")
    keep = numbers != 0
    counts = keep.sum(1, dtype=torch.int32)
    rows, columns = keep.shape
    padded = np.zeros((rows, -(-columns // CHUNK) * CHUNK), np.bool_)
    padded[:, :columns] = keep.numpy()
    mask = torch.from_numpy(np.packbits(padded, axis=1, bitorder="little"))
    packed = Packed(
        (rows, columns),
        grid,
        mask,
        counts,
        numbers[keep],
        weight.scales if isinstance(weight, Codes) else None,
    )
    return (
        packed if grid is None else Packed(packed.shape, grid, mask, counts, _stored(packed), packed.scales)
    )


def _stored(packed: Packed) -> Tensor:
    """Return the codes of `packed`, int8, as they are stored."""
    if packed.kind == "int8":
        return (packed.values.to(torch.int16) + 128).to(torch.uint8)
    offsets = packed.offsets()
    nibbles = torch.full((int(offsets[-1]),), 8, dtype=torch.uint8)
    nibbles[_places(packed.counts, offsets)] = (packed.values + 8).to(torch.uint8)
    pairs = nibbles.view(-1, 2)
    return pairs[:, 0] | pairs[:, 1] << 4


def _places(counts: Tensor, offsets: Tensor) -> Tensor:
    """Return the position of each value, given the values of each row and where each row begins."""
    before = torch.cumsum(counts.long(), 0) - counts
    return torch.arange(int(counts.sum())) + torch.repeat_interleave(offsets[:-1] - before, counts.long())
