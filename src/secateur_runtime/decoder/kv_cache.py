"""Keys and values of one request, in memory that leaves the process part by part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import gcd
from types import TracebackType

import torch
from torch import Tensor

from secateur_runtime.decoder.releasable_memory import PAGE, ReleasableMemory, whole_pages


class ElasticCache:
    """What a request that has begun remembers.

    Keys and values of every block, `[groups, tokens, head_dim]` each.

    groups: for each block, the key-value groups that this request uses; never more than since it began,
    because later ones
        would lack its first tokens. 0 where attention is gone.
    tokens: how many are remembered; limit: how many can be.
    """

    def __init__(
        self,
        groups: Sequence[int],
        sizes: Sequence[tuple[int, int]],
        limit: int,
        dtype: torch.dtype,
        closing: Callable[[ElasticCache], int],
    ) -> None:
        self.groups = list(groups)
        self.tokens = 0
        self.closed = False
        self._closing = closing
        self._row = [head_dim * dtype.itemsize for _, head_dim in sizes]
        # Every group starts on a page, so that it can leave alone.
        each = max((PAGE // gcd(PAGE, row) for row in self._row if row), default=1)
        self.limit = -(-limit // each) * each
        self._room = ReleasableMemory(
            sum(2 * heads * self.limit * row for (heads, _), row in zip(sizes, self._row, strict=True))
        )
        self._keys = list[Tensor]()
        self._values = list[Tensor]()
        self._starts = list[tuple[int, int]]()
        start = 0
        for (heads, head_dim), row in zip(sizes, self._row, strict=True):
            half = heads * self.limit * row
            self._starts.append((start, start + half))
            self._keys.append(self._room.tensor(start, (heads, self.limit, head_dim), dtype))
            self._values.append(self._room.tensor(start + half, (heads, self.limit, head_dim), dtype))
            start += 2 * half

    @property
    def bytes(self) -> int:
        """Bytes that its pages take."""
        return 0 if self.closed else sum(self._held(block, count) for block, count in enumerate(self.groups))

    def append(self, block: int, keys: Tensor, values: Tensor) -> None:
        """Remember more tokens, `[groups, tokens, head_dim]`, of which `tokens` does not count until all blocks have them."""
        count = self.groups[block]
        end = self.tokens + keys.shape[1]
        self._keys[block][:count, self.tokens : end] = keys[:count]
        self._values[block][:count, self.tokens : end] = values[:count]

    def read(self, block: int, start: int, end: int) -> tuple[Tensor, Tensor]:
        """Return float32 keys and values of the tokens from `start` to `end`, of the groups that this request uses."""
        count = self.groups[block]
        return self._keys[block][:count, start:end].float(), self._values[block][:count, start:end].float()

    def shrink(self, block: int, groups: int) -> int:
        """Forget all but the first `groups` groups of a block; return the bytes freed."""
        if groups >= self.groups[block]:
            return 0
        freed = self._held(block, self.groups[block]) - self._held(block, groups)
        span = self.limit * self._row[block]
        for start in self._starts[block]:
            self._room.release(start + groups * span, start + self.groups[block] * span)
        self.groups[block] = groups
        return freed

    def close(self) -> int:
        """Give all memory back, as soon as no pass is running; return the bytes freed."""
        return self._closing(self)

    def empty(self) -> int:
        """Forget everything, and be closed; return the bytes freed. For the model that opened it."""
        freed = sum(self.shrink(block, 0) for block in range(len(self.groups)))
        self.closed = True
        return freed

    def __enter__(self) -> ElasticCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _held(self, block: int, groups: int) -> int:
        return 2 * groups * whole_pages(self.tokens * self._row[block])
