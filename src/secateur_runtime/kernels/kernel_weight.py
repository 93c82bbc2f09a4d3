"""Weights as the C kernels read them, and their products."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from secateur_runtime.errors import UsageError
from secateur_runtime.kernels.bitmask import CHUNK, Packed
from secateur_runtime.kernels.library import Matrix
from secateur_runtime.kernels.quantized import Codes, Grid

F32, BF16, INT8, INT4, BF16_SPARSE, INT8_SPARSE, INT4_SPARSE = range(7)
NAMES = ("f32", "bf16", "int8", "int4", "sparse-bf16", "sparse-int8", "sparse-int4")
"""The name of each kind."""
GROUP = 32
"""Groups of inputs that share a scale have a multiple of this size, or are whole rows."""
_SPARSE = {"bf16": BF16_SPARSE, "int8": INT8_SPARSE, "int4": INT4_SPARSE}
_LINE = 64
_LARGE = 2 << 20
_FLOATS = ctypes.POINTER(ctypes.c_float)


CODES_CHUNK = CHUNK
CODES_BYTES = CHUNK // 2
"""Inputs whose 4-bit codes are interleaved, and the bytes of these codes."""


@dataclass(frozen=True, slots=True)
class Laid:
    """Codes of 8 or 4 bits in the layout of the kernels (`sec_matrix` of kernels.h).

    values: `[rows, bytes]`, uint8. scales: `[rows, groups]`, float16. group: columns that share a scale, 0
    for a whole row.
    """

    values: Tensor
    scales: Tensor
    bits: int
    columns: int
    group: int


class Weight:
    """One weight `[rows, columns]` in the form of a kernel, with the memory that `matrix` points into."""

    def __init__(self, weight: Tensor | Laid | Codes | Packed) -> None:
        self.kind, group, self.rows, self.columns, parts = _described(weight)
        self._names = tuple(parts)
        self.matrix = Matrix(kind=self.kind, group=group, rows=self.rows, cols=self.columns)
        self.lie_in([part.contiguous() for part in parts.values()])

    @property
    def nbytes(self) -> int:
        """Bytes that a product reads, offsets included."""
        return sum(part.nbytes for part in self.parts)

    def lie_in(self, parts: list[Tensor]) -> None:
        """Point `matrix` to these arrays, which hold the same numbers as `parts`."""
        # ctypes holds addresses only, so the arrays must stay alive here.
        self.parts = parts
        for name, part in zip(self._names, parts, strict=True):
            setattr(self.matrix, name, part.data_ptr())


def settle(weights: Sequence[Weight]) -> None:
    """Move weights that are read one after another into one piece of memory; see `together`."""
    moved = iter(together([part for weight in weights for part in weight.parts]))
    for weight in weights:
        weight.lie_in([next(moved) for _ in weight.parts])


def together(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return copies that lie one after another in one `ArrayMemory`."""
    piece = ArrayMemory([tensor.nbytes for tensor in tensors])
    return [
        piece.array(place, tensor.dtype, tensor.shape).copy_(tensor) for place, tensor in enumerate(tensors)
    ]


class ArrayMemory:
    """Memory for arrays that lie one after another.

    The system is asked to use large pages; it gets the memory back when the last array is deleted.
    sizes: bytes of each array.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        starts = list(accumulate((-(-size // _LINE) * _LINE for size in sizes), initial=0))
        size = starts.pop()
        self._memory = mmap.mmap(-1, size + _LARGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        first = -torch.frombuffer(self._memory, dtype=torch.uint8).data_ptr() % _LARGE
        # The rest is excluded, because it would take a whole large page.
        if size >= _LARGE and hasattr(mmap, "MADV_HUGEPAGE"):
            self._memory.madvise(mmap.MADV_HUGEPAGE, first, size // _LARGE * _LARGE)
        self._ranges = [
            (first + start, first + start + size) for start, size in zip(starts, sizes, strict=True)
        ]

    def array(self, place: int, dtype: torch.dtype, shape: Sequence[int]) -> Tensor:
        """Return the array at `place`."""
        start, end = self._ranges[place]
        if start == end:
            return torch.empty(*shape, dtype=dtype)
        return torch.frombuffer(
            self._memory, dtype=dtype, count=(end - start) // dtype.itemsize, offset=start
        ).view(*shape)

    def release(self, place: int) -> None:
        """Release the whole pages of the array at `place` and lose their contents."""
        start, end = self._ranges[place]
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        last = end // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first:
            self._memory.madvise(mmap.MADV_DONTNEED, first, last - first)


def _laid(codes: Codes) -> Laid:
    columns = codes.values.shape[1]
    bits = 8 if codes.grid.bits > 4 else 4
    values = (codes.values.to(torch.int16) + 128).to(torch.uint8) if bits == 8 else _nibbles(codes.values)
    return Laid(values, codes.scales, bits, columns, _group(codes.grid, columns))


def _described(weight: Tensor | Laid | Codes | Packed) -> tuple[int, int, int, int, dict[str, Tensor]]:
    """Return kind, group, rows, columns and the arrays of a weight."""
    if isinstance(weight, Tensor):
        rows, columns = weight.shape
        kinds = {torch.float32: F32, torch.bfloat16: BF16}
        if weight.dtype not in kinds:
            raise UsageError(f"weights of {weight.dtype}: the kernels take float32 and bfloat16")
        return kinds[weight.dtype], 0, rows, columns, {"values": weight}
    if isinstance(weight, Codes):
        weight = _laid(weight)
    if isinstance(weight, Laid):
        kind = INT8 if weight.bits == 8 else INT4
        parts = {"values": weight.values, "scales": weight.scales}
        return kind, weight.group, len(weight.values), weight.columns, parts
    rows, columns = weight.shape
    parts = {"values": weight.values, "mask": weight.mask, "offsets": weight.offsets()}
    if weight.grid is None or weight.scales is None:
        return BF16_SPARSE, 0, rows, columns, parts
    return (
        _SPARSE[weight.kind],
        _group(weight.grid, columns),
        rows,
        columns,
        {**parts, "scales": weight.scales},
    )


def _group(grid: Grid, columns: int) -> int:
    if not grid.symmetric:
        raise UsageError(f"weights on the grid {grid}: the kernels take symmetric grids")
    if grid.group == columns:
        return 0
    if grid.group % GROUP:
        raise UsageError(
            f"weights on the grid {grid}: the kernels take groups that are multiples of {GROUP}, or whole"
            " rows"
        )
    return grid.group


def _nibbles(values: Tensor) -> Tensor:
    rows, columns = values.shape
    padded = torch.full((rows, -(-columns // CHUNK) * CHUNK), 8, dtype=torch.uint8)
    padded[:, :columns] = (values + 8).to(torch.uint8)
    chunks = padded.view(rows, -1, 2, CHUNK // 2)
    return (chunks[:, :, 0] | chunks[:, :, 1] << 4).flatten(1)
