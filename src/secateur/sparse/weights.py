"""Weights as the C kernels read them, and their products."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from secateur.core.codes import Codes, Grid
from secateur.core.errors import UsageError
from secateur.core.sparse import CHUNK, Packed
from secateur.sparse.library import Matrix

F32, BF16, INT8, INT4, BF16_SPARSE, INT8_SPARSE, INT4_SPARSE = range(7)
NAMES = ("f32", "bf16", "int8", "int4", "sparse-bf16", "sparse-int8", "sparse-int4")
"""What each of them is called."""
BATCH = 8
"""Inputs that one product takes."""
GROUP = 32
"""Groups of inputs that share a scale are multiples of it, or whole rows."""
_SPARSE = {"bf16": BF16_SPARSE, "int8": INT8_SPARSE, "int4": INT4_SPARSE}
_PAGE, _LARGE, _MADV_HUGEPAGE = 4096, 4 << 20, 14
_FLOATS = ctypes.POINTER(ctypes.c_float)


class Weight:
    """One weight `[rows, columns]` in the form of a kernel, with the memory that `matrix` points into.

    nbytes: what a product reads of it, offsets included.
    """

    def __init__(self, weight: Tensor | Codes | Packed) -> None:
        self.kind, group, self.rows, self.columns, parts = _described(weight)
        # The memory is ours to keep: ctypes holds addresses only.
        self._parts = {name: part.contiguous() for name, part in parts.items()}
        self.nbytes = sum(part.nbytes for part in self._parts.values())
        self.matrix = Matrix(kind=self.kind, group=group, rows=self.rows, cols=self.columns)
        for name, part in self._parts.items():
            setattr(self.matrix, name, part.data_ptr())


def multiply(library: ctypes.CDLL, weight: Weight, inputs: Tensor, pool: int | None = None) -> Tensor:
    """Return `inputs @ weight.T`, `[n, rows]` float32, for up to 8 inputs `[n, columns]` float32; raises UsageError for other shapes.

    pool: what `threads` yields; the caller alone multiplies without one.
    """
    if inputs.dim() != 2 or inputs.shape[1] != weight.columns or not 1 <= len(inputs) <= BATCH:
        raise UsageError(f"inputs of shape {list(inputs.shape)}: a weight of {weight.columns} columns takes 1 to {BATCH} rows of as many")
    inputs, out = inputs.float().contiguous(), torch.empty(len(inputs), weight.rows)
    scratch = ctypes.create_string_buffer(library.sec_scratch(len(inputs), weight.columns, 1 << weight.kind))
    source, target = (ctypes.cast(tensor.data_ptr(), _FLOATS) for tensor in (inputs, out))
    library.sec_product(pool, weight.matrix, scratch, source, weight.columns, len(inputs), target, weight.rows)
    return out


def on_large_pages(tensor: Tensor) -> Tensor:
    """Return a copy whose memory the system was asked to hold in large pages, which it may do or not."""
    copy = torch.empty_like(tensor, memory_format=torch.contiguous_format)
    start, end = -(-copy.data_ptr() // _PAGE) * _PAGE, copy.data_ptr() + copy.nbytes
    if end - start >= _LARGE and sys.platform == "linux":
        # Only advice: whatever it answers, the memory is the same.
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t((end - start) // _PAGE * _PAGE), _MADV_HUGEPAGE)
    return copy.copy_(tensor)


@contextmanager
def threads(library: ctypes.CDLL, count: int) -> Iterator[int | None]:
    """Yield a pool of `count` threads, the caller included, at most one for each core; None where one is enough or no thread can be had."""
    pool: int | None = library.sec_pool_new(count) if count > 1 else None
    try:
        yield pool
    finally:
        library.sec_pool_free(pool)


def _described(weight: Tensor | Codes | Packed) -> tuple[int, int, int, int, dict[str, Tensor]]:
    """Return kind, group, rows, columns and the arrays of a weight."""
    if isinstance(weight, Tensor):
        rows, columns = weight.shape
        kinds = {torch.float32: F32, torch.bfloat16: BF16}
        if weight.dtype not in kinds:
            raise UsageError(f"weights of {weight.dtype}: the kernels take float32 and bfloat16")
        return kinds[weight.dtype], 0, rows, columns, {"values": weight}
    if isinstance(weight, Codes):
        (rows, columns), grid = weight.values.shape, weight.grid
        wide = grid.bits > 4
        values = (weight.values.to(torch.int16) + 128).to(torch.uint8) if wide else _nibbles(weight.values)
        return INT8 if wide else INT4, _group(grid, columns), rows, columns, {"values": values, "scales": weight.scales}
    rows, columns = weight.shape
    parts = {"values": weight.values, "mask": weight.mask, "offsets": weight.offsets()}
    if weight.grid is None or weight.scales is None:
        return BF16_SPARSE, 0, rows, columns, parts
    return _SPARSE[weight.kind], _group(weight.grid, columns), rows, columns, {**parts, "scales": weight.scales}


def _group(grid: Grid, columns: int) -> int:
    if not grid.symmetric:
        raise UsageError(f"weights on the grid {grid}: the kernels take symmetric grids")
    if grid.group == columns:
        return 0
    if grid.group % GROUP:
        raise UsageError(f"weights on the grid {grid}: the kernels take groups that are multiples of {GROUP}, or whole rows")
    return grid.group


def _nibbles(values: Tensor) -> Tensor:
    rows, columns = values.shape
    padded = torch.full((rows, -(-columns // CHUNK) * CHUNK), 8, dtype=torch.uint8)
    padded[:, :columns] = (values + 8).to(torch.uint8)
    chunks = padded.view(rows, -1, 2, CHUNK // 2)
    return chunks[:, :, 0] | chunks[:, :, 1] << 4
