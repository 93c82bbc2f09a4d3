"""A pool of threads for the kernels."""

from __future__ import annotations

import ctypes
import weakref

import numpy as np
from numpy.typing import NDArray


class ThreadPool:
    """Up to `threads` threads, at most one for each core; they end with this object."""

    def __init__(self, library: ctypes.CDLL, threads: int) -> None:
        self.pointer = library.sec_pool_new(threads)
        self.threads = int(library.sec_pool_threads(self.pointer))
        self._library = library
        weakref.finalize(self, library.sec_pool_free, self.pointer)

    def read(self, words: NDArray[np.uint64]) -> int:
        """Read memory, a multiple of 64 bytes, on all threads; return the sum of its words."""
        return int(self._library.sec_stream(self.pointer, words.ctypes.data, words.nbytes))
