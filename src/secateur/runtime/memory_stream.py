"""Memory bandwidth as a Backend, so that it can be timed in turns with models."""

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
    """A Backend that reads `SIZE` bytes of memory for each answer; the decoding time is the reading time."""

    name = "memory"

    def __init__(self, pool: ThreadPool) -> None:
        self._pool = pool
        self._words = np.ones(SIZE // 8, np.uint64)

    def logprobs(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Return no probabilities: there is no model."""
        return np.empty(0, np.float32)

    def generate(self, prompt: Sequence[int], max_tokens: int) -> Generated:
        """Read the memory once; the time to the first token means nothing."""
        start = time.perf_counter()
        self._pool.read(self._words)
        return Generated((), 1.0, time.perf_counter() - start)

    def memory(self) -> Memory:
        """Return the memory of this process."""
        return process_memory()
