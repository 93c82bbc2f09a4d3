"""How fast this machine reads memory and multiplies matrices, measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

STREAM_BYTES = 512 << 20
"""Far beyond the caches of one core's neighbours; an L3 of a whole server may still hold it."""
_SIDE = 1024
_SECONDS = 0.7


@dataclass(frozen=True, slots=True)
class MeasuredRates:
    """Measured speeds of a machine, each the best of several runs.

    read, copy: bytes per second; a copy counts the bytes read and those written. matrix: operations per
    second of the fastest matrix product over all tested dtypes. matrix_type: the dtype of that product.
    """

    threads: int
    read: float
    copy: float
    matrix: float
    matrix_type: str


def measure_machine(threads: int, *, memory: int, stream_bytes: int = STREAM_BYTES) -> MeasuredRates:
    """Measure with `threads` threads; arrays take `stream_bytes`, at most an eighth of `memory` bytes."""
    size = max(1 << 20, min(stream_bytes, memory // 8))
    with _threads(threads):
        matrix = {
            name: _matrix(dtype) for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16))
        }
        best = max(matrix, key=matrix.__getitem__)
        return MeasuredRates(threads, _read(size), _copy(size // 2), matrix[best], best)


def _read(size: int) -> float:
    # A product of a matrix with a vector reads each number once, as decoding does.
    columns = 4096
    values = torch.ones(max(1, size // 4 // columns), columns)
    vector = torch.ones(columns)
    out = torch.empty(values.shape[0])
    return values.nbytes / _fastest(lambda: torch.mv(values, vector, out=out))


def _copy(size: int) -> float:
    source = torch.ones(size // 4)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _fastest(lambda: target.copy_(source))


def _matrix(dtype: torch.dtype) -> float:
    left = torch.ones(_SIDE, _SIDE, dtype=dtype)
    out = torch.empty_like(left)
    return 2 * _SIDE**3 / _fastest(lambda: torch.mm(left, left, out=out))


def _fastest(work: Callable[[], object]) -> float:
    """Return the seconds of the fastest run; what else the machine does only makes others slower."""
    work()
    best = float("inf")
    end = time.perf_counter() + _SECONDS
    while time.perf_counter() < end or best == float("inf"):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
