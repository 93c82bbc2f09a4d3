"""Weights with a prefix of their units in memory, and products with that prefix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur_runtime.decoder.releasable_memory import ReleasableMemory, WeightFile, whole_pages

SCRATCH = 300_000
"""Numbers converted at once, chosen to stay in the second-level cache of a core. Of 128 to 1,536 rows of
SmolLM2, 512 were the fastest.
"""


@dataclass(frozen=True, slots=True)
class FileSpan:
    """Position of a tensor in a file: offset in bytes, shape, type."""

    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """Size of the tensor in bytes."""
        return self.row_bytes * self.shape[0]

    @property
    def row_bytes(self) -> int:
        """Bytes of one index of the first dimension."""
        return self.dtype.itemsize * (self.shape[1] if len(self.shape) > 1 else 1)


class Prefix:
    """A stored tensor whose first units are in memory; a unit owns `block` rows.

    held: the rows to compute with, a view that `hold` and `show` change.
    """

    def __init__(
        self, memory: ReleasableMemory, start: int, file: WeightFile, stored: FileSpan, block: int
    ) -> None:
        self._memory = memory
        self._start = start
        self._file = file
        self._stored = stored
        self._block = block
        self._whole = memory.tensor(start, stored.shape, stored.dtype)
        self._rows = 0
        self.held = self._whole[:0]

    def hold(self, units: int) -> int:
        """Hold `units` units in memory and read those that are missing.

        Returns the bytes that this frees; negative if it takes memory.
        """
        size = self._stored.row_bytes
        before = self._rows
        after = units * self._block
        if after > before:
            self._memory.fill(
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
        return self._memory.release(self._start + after * size, self._start + whole_pages(before * size))

    def show(self, units: int) -> None:
        """Compute with the first `units` of the units in memory."""
        self.held = self._whole[: min(units * self._block, self._rows)]


def product(x: Tensor, rows: Tensor) -> Tensor:
    """Return `x @ rows.T`, `[tokens, len(rows)]` float32.

    x: `[tokens, width]` float32. rows: `[outputs, width]` of any type; they are converted a few at a time,
    which costs a sixth of the time for one token and nothing for eight.
    """
    if rows.dtype == x.dtype:
        return x @ rows.T
    found = x.new_empty(len(rows), len(x))
    turned = x.T.contiguous()
    for start, part in _converted(rows):
        torch.mm(part, turned, out=found[start : start + len(part)])
    return found.T


def combination(x: Tensor, rows: Tensor) -> Tensor:
    """Return `x @ rows`, `[tokens, width]` float32.

    x: `[tokens, len(rows)]` float32. rows: `[inputs, width]` of any type.
    """
    if rows.dtype == x.dtype:
        return x @ rows
    found = x.new_zeros(len(x), rows.shape[1])
    for start, part in _converted(rows):
        found.addmm_(x[:, start : start + len(part)], part)
    return found


def _converted(rows: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield the rows in float32, a few at a time, in memory that is reused."""
    some = max(1, SCRATCH // rows.shape[1])
    scratch = torch.empty(min(some, len(rows)), rows.shape[1])
    for start in range(0, len(rows), some):
        part = scratch[: min(some, len(rows) - start)]
        yield start, part.copy_(rows[start : start + some])


@dataclass(frozen=True, slots=True)
class Rows:
    """A linear whose outputs are units: `y = x @ held.T + bias`."""

    weight: Prefix
    bias: Prefix | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Return the outputs `[tokens, units held]` for inputs `[tokens, width]`."""
        output = product(x, self.weight.held)
        return output if self.bias is None else output + self.bias.held


@dataclass(frozen=True, slots=True)
class Columns:
    """A linear whose inputs are units, stored with its inputs as rows: `y = x @ held + bias`."""

    weight: Prefix
    bias: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Return the outputs `[tokens, width]` for inputs `[tokens, units held]`."""
        output = combination(x, self.weight.held)
        return output if self.bias is None else output + self.bias


@dataclass(frozen=True, slots=True)
class Lookup:
    """An embedding table with the scale of the family."""

    weight: Prefix
    scale: float = 1.0

    def __call__(self, tokens: Tensor) -> Tensor:
        """Return `[tokens, width]` float32 for token ids `[tokens]`."""
        found = self.weight.held[tokens].float()
        return found if self.scale == 1 else found * self.scale
