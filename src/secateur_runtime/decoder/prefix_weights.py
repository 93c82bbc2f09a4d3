"""Weights of which a prefix of units is in memory, and the products with that prefix."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur_runtime.decoder.releasable_memory import ReleasableMemory, WeightFile, whole_pages

SCRATCH = 300_000
"""Numbers converted at once: as many as stay in a core's second-level cache. Of 128 to 1,536 rows of SmolLM2,
512 were the fastest.
"""
_OWN = threading.local()


@dataclass(frozen=True, slots=True)
class FileSpan:
    """Where a tensor lies in a file: offset in bytes, shape, type."""

    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """Its size."""
        return self.row_bytes * self.shape[0]

    @property
    def row_bytes(self) -> int:
        """Bytes of what one index of its first dimension owns."""
        return self.dtype.itemsize * (self.shape[1] if len(self.shape) > 1 else 1)


class Prefix:
    """A stored tensor of which the first units are held; a unit owns `block` rows.

    held: the rows to compute with, a view that changes with `hold` and `show`.
    """

    def __init__(
        self, room: ReleasableMemory, start: int, file: WeightFile, stored: FileSpan, block: int
    ) -> None:
        self._room = room
        self._start = start
        self._file = file
        self._stored = stored
        self._block = block
        self._whole = room.tensor(start, stored.shape, stored.dtype)
        self._rows = 0
        self.held = self._whole[:0]

    def hold(self, units: int) -> int:
        """Hold so many units, reading those that are missing.

        Return the bytes that this frees (negative: takes).
        """
        size = self._stored.row_bytes
        before = self._rows
        after = units * self._block
        if after > before:
            self._room.fill(
                self._start + before * size,
                self._file,
                self._stored.offset + before * size,
                (after - before) * size,
            )
        self._rows = after
        self.show(units)
        if after >= before:
            return (before - after) * size
        # Every tensor starts on a page, so the last page that it reaches is its own to the end.
        return self._room.release(self._start + after * size, self._start + whole_pages(before * size))

    def show(self, units: int) -> None:
        """Compute with so many of the units that are held."""
        self.held = self._whole[: min(units * self._block, self._rows)]


def product(x: Tensor, rows: Tensor) -> Tensor:
    """Return `x @ rows.T`, `[tokens, len(rows)]` float32, for `x` `[tokens, width]` float32 and `rows` of any type.

    Rows are converted a few at a time, which at one token costs a sixth of the time and at eight nothing.
    """
    if rows.dtype == x.dtype:
        return x @ rows.T
    found = x.new_empty(len(rows), len(x))
    turned = x.T.contiguous()
    for start, part in _converted(rows):
        torch.mm(part, turned, out=found[start : start + len(part)])
    return found.T


def combination(x: Tensor, rows: Tensor) -> Tensor:
    """Return `x @ rows`, `[tokens, width]` float32, for `x` `[tokens, len(rows)]` float32 and `rows` of any type."""
    if rows.dtype == x.dtype:
        return x @ rows
    found = x.new_zeros(len(x), rows.shape[1])
    for start, part in _converted(rows):
        found.addmm_(x[:, start : start + len(part)], part)
    return found


def _converted(rows: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield the rows in float32, a few at a time, each time in the same memory."""
    some = max(1, SCRATCH // rows.shape[1])
    if getattr(_OWN, "scratch", None) is None or _OWN.scratch.numel() < some * rows.shape[1]:
        _OWN.scratch = torch.empty(some * rows.shape[1])
    scratch = _OWN.scratch[: some * rows.shape[1]].view(some, rows.shape[1])
    for start in range(0, len(rows), some):
        part = scratch[: min(some, len(rows) - start)]
        yield start, part.copy_(rows[start : start + some])


@dataclass(frozen=True, slots=True)
class Rows:
    """A linear whose outputs are units: `y = x @ held.T + bias`."""

    weight: Prefix
    bias: Prefix | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Return `[tokens, units held]` for `[tokens, width]`."""
        output = product(x, self.weight.held)
        return output if self.bias is None else output + self.bias.held


@dataclass(frozen=True, slots=True)
class Columns:
    """A linear whose inputs are units, stored with its inputs as rows: `y = x @ held + bias`."""

    weight: Prefix
    bias: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Return `[tokens, width]` for `[tokens, units held]`."""
        output = combination(x, self.weight.held)
        return output if self.bias is None else output + self.bias


@dataclass(frozen=True, slots=True)
class Lookup:
    """An embedding, scaled as the family does it."""

    weight: Prefix
    scale: float = 1.0

    def __call__(self, tokens: Tensor) -> Tensor:
        """Return `[tokens, width]` float32 for token ids `[tokens]`."""
        found = self.weight.held[tokens].float()
        return found if self.scale == 1 else found * self.scale
