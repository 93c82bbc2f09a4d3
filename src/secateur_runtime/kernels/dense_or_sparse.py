"""Whether a weight runs faster without its zeros or with them, measured on the machine that will run it."""

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
"""Weights of one shape are alike if they are in the same twentieth of density."""
_EVICTED = 8 << 20
"""Words read before each run, so that it finds its weights in memory and not in a core's own cache, as
decoding does.
"""
_RUN = 8 << 20
"""Bytes of weights, copies of one, that a run goes through, as decoding goes through many."""
_MARGIN = 0.95
"""Times of single weights tell those of whole models within about 5 %, so what gains less than that may lose.
"""


@dataclass(frozen=True, slots=True)
class TimedForms:
    """A kind of weight that was timed: seconds of a product with one input, median, in either form."""

    rows: int
    columns: int
    kind: str
    density: float
    sparse: float
    dense: float

    @property
    def pays(self) -> bool:
        """Whether leaving zeros out is clearly faster."""
        return self.sparse < _MARGIN * self.dense


class Chooser:
    """Picks, for each shape and density it meets, the faster form, by timing the first weight of the kind."""

    def __init__(self, library: ctypes.CDLL, pool: ThreadPool) -> None:
        self._library = library
        self._pool = pool
        self._other = np.ones(_EVICTED, np.uint64)
        self._timed: dict[tuple[int, int, str, int], TimedForms] = {}

    def faster(self, packed: Packed, dense: Tensor | Codes) -> Weight:
        """Return the one of two forms of a weight that is multiplied faster."""
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
        """What was timed so far."""
        return tuple(self._timed.values())

    def _seconds(self, copies: Sequence[Weight]) -> float:
        """Return seconds of a product with one of copies of a weight."""
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
