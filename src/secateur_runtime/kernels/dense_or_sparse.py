"""Choose between the dense and the sparse form of a weight by timing both on this machine."""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from secateur_runtime.kernels.bitmask import Packed
from secateur_runtime.kernels.kernel_weight import Weight, settle
from secateur_runtime.kernels.quantized import Codes
from secateur_runtime.kernels.thread_pool import ThreadPool

_ROUNDS = 5
_DENSITIES = 20
"""Weights of one shape count as equal if their densities, in twentieths, round to the same number."""
_EVICTED = 8 << 20
"""Words read before each run, so that its weights come from memory and not from a cache, as in decoding."""
_RUN = 8 << 20
"""Bytes of weights in a run, copies of one weight, because decoding reads many."""
_MARGIN = 0.95
"""Times of single weights predict those of whole models within about 5 %, so smaller gains may be losses."""


@dataclass(frozen=True, slots=True)
class TimedForms:
    """A kind of weight that was timed: median seconds of a product with one input, in both forms."""

    rows: int
    columns: int
    kind: str
    density: float
    sparse: float
    dense: float

    @property
    def pays(self) -> bool:
        """Whether the sparse form is clearly faster."""
        return self.sparse < _MARGIN * self.dense


class Chooser:
    """Picks the faster form for each shape and density, by timing the first weight of each kind."""

    def __init__(self, library: ctypes.CDLL, pool: ThreadPool) -> None:
        self._library = library
        self._pool = pool
        self._other = np.ones(_EVICTED, np.uint64)
        self._timed: dict[tuple[int, int, str, int], TimedForms] = {}

    def faster(self, packed: Packed, dense: Tensor | Codes) -> Weight:
        """Return the form of a weight whose product is faster."""
        rows, columns = packed.shape
        density = int(packed.counts.sum()) / (rows * columns)
        key = (rows, columns, packed.kind, round(density * _DENSITIES))
        if key not in self._timed:
            both = _copies(packed), _copies(dense)
            runs = [[self._seconds(copies) for copies in both] for _ in range(_ROUNDS)]
            ours, theirs = (statistics.median(each) for each in zip(*runs, strict=True))
            self._timed[key] = TimedForms(rows, columns, f"sparse-{packed.kind}", density, ours, theirs)
        return Weight(packed) if self._timed[key].pays else Weight(dense)

    @property
    def timed(self) -> tuple[TimedForms, ...]:
        """The kinds of weights timed so far."""
        return tuple(self._timed.values())

    def _seconds(self, copies: Sequence[Weight]) -> float:
        """Return the mean seconds of a product with one of `copies` of a weight."""
        weight = copies[0]
        inputs = np.ones(weight.columns, np.float32)
        out = np.empty(weight.rows, np.float32)
        scratch = ctypes.create_string_buffer(self._library.sec_scratch(1, weight.columns, 1 << weight.kind))
        source, target = (array.ctypes.data_as(ctypes.POINTER(ctypes.c_float)) for array in (inputs, out))
        self._pool.read(self._other)
        start = time.perf_counter()
        for weight in copies:
            self._library.sec_product(
                self._pool.pointer, weight.matrix, scratch, source, weight.columns, 1, target, weight.rows
            )
        return (time.perf_counter() - start) / len(copies)


def _copies(form: Packed | Tensor | Codes) -> list[Weight]:
    first = Weight(form)
    copies = [first, *(Weight(form) for _ in range(_RUN // first.nbytes))]
    settle(copies)
    return copies
