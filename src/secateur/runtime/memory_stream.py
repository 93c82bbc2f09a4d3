"""Memory as a backend: how fast it is read, in turns with models that read it."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from secateur.runtime import Generated, Memory
from secateur.runtime.process import process_memory
from secateur_runtime.kernels.thread_pool import ThreadPool

SIZE = 512 << 20
"""Bytes that are read; more than the cores' own caches hold, while a server's last cache may still help, as
it helps models of this size.
"""


class Stream:
    """`SIZE` bytes of memory, read once for each answer: the seconds of its tokens are those of reading."""

    name = "memory"

    def __init__(self, pool: ThreadPool) -> None:
        self._pool = pool
        self._words = np.ones(SIZE // 8, np.uint64)

    def logprobs(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Return nothing: memory predicts nothing."""
        return np.empty(0, np.float32)

    def generate(self, prompt: Sequence[int], max_tokens: int) -> Generated:
        """Read memory once; there is no prompt to be read before."""
        start = time.perf_counter()
        self._pool.read(self._words)
        return Generated((), 1.0, time.perf_counter() - start)

    def memory(self) -> Memory:
        """Return what the process holds."""
        return process_memory()
