"""Keys and values of one request, in memory that can be released part by part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import gcd
from types import TracebackType

import torch
from torch import Tensor

from secateur_runtime.decoder.releasable_memory import PAGE, ReleasableMemory, whole_pages


class ElasticCache:
    """Keys and values of every block for one request, `[groups, tokens, head_dim]` each.

    groups: for each block, the key-value groups that this request uses; 0 where attention is removed. The
    number never grows, because groups restored later would lack the first tokens.
    tokens: how many tokens are stored. limit: how many can be stored.
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
        # Every group starts on a page, so that it can be released alone.
        each = max((PAGE // gcd(PAGE, row) for row in self._row if row), default=1)
        self.limit = -(-limit // each) * each
        self._memory = ReleasableMemory(
            sum(2 * heads * self.limit * row for (heads, _), row in zip(sizes, self._row, strict=True))
        )
        self._keys = list[Tensor]()
        self._values = list[Tensor]()
        self._starts = list[tuple[int, int]]()
        start = 0
        for (heads, head_dim), row in zip(sizes, self._row, strict=True):
            size = heads * self.limit * row
            self._starts.append((start, start + size))
            self._keys.append(self._memory.tensor(start, (heads, self.limit, head_dim), dtype))
            self._values.append(self._memory.tensor(start + size, (heads, self.limit, head_dim), dtype))
            start += 2 * size

    @property
    def bytes(self) -> int:
        """Bytes of the pages that it takes."""
        return 0 if self.closed else sum(self._held(block, count) for block, count in enumerate(self.groups))

    def append(self, block: int, keys: Tensor, values: Tensor) -> None:
        """Store keys and values of more tokens, `[groups, tokens, head_dim]` each.

        The caller adds them to `tokens` when all blocks have them.
        """
        count = self.groups[block]
        end = self.tokens + keys.shape[1]
        self._keys[block][:count, self.tokens : end] = keys[:count]
        self._values[block][:count, self.tokens : end] = values[:count]

    def read(self, block: int, start: int, end: int) -> tuple[Tensor, Tensor]:
        """Return keys and values of tokens `start` to `end`, `[groups, tokens, head_dim]` float32."""
        count = self.groups[block]
        return self._keys[block][:count, start:end].float(), self._values[block][:count, start:end].float()

    def shrink(self, block: int, groups: int) -> int:
        """Forget all but the first `groups` groups of a block; return the bytes freed."""
        if groups >= self.groups[block]:
            return 0
        freed = self._held(block, self.groups[block]) - self._held(block, groups)
        span = self.limit * self._row[block]
        for start in self._starts[block]:
            self._memory.release(start + groups * span, start + self.groups[block] * span)
        self.groups[block] = groups
        return freed

    def close(self) -> int:
        """Release all memory as soon as no pass is running; return the bytes freed."""
        return self._closing(self)

    def empty(self) -> int:
        """Release everything and mark the cache closed; return the bytes freed.

        Only the model that opened the cache calls this.
        """
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
