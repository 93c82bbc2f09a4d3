"""Threads of the kernels."""

from __future__ import annotations

import ctypes

import numpy as np

from secateur_runtime.kernels.library import kernels
from secateur_runtime.kernels.thread_pool import ThreadPool


def library() -> ctypes.CDLL:
    found = kernels()
    assert found is not None
    return found


def test_memory_is_read() -> None:
    words = np.arange(8 * 1000, dtype=np.uint64)
    assert ThreadPool(library(), 2).read(words) == words.sum()
