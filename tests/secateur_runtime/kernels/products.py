"""One product in the kernels, as tests and the benchmark of the kernels ask for it."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from secateur_runtime.kernels.kernel_weight import Weight
from secateur_runtime.kernels.thread_pool import ThreadPool

BATCH = 8
"""Most inputs of one product (`SEC_BATCH` of kernels.h)."""
_FLOATS = ctypes.POINTER(ctypes.c_float)


def multiply(library: ctypes.CDLL, weight: Weight, inputs: Tensor, pool: ThreadPool | None = None) -> Tensor:
    """Return `inputs @ weight.T`, `[n, rows]` float32, for up to 8 inputs `[n, columns]` float32.

    pool: without one, only the calling thread computes.
    """
    assert inputs.dim() == 2
    assert inputs.shape[1] == weight.columns
    assert 1 <= len(inputs) <= BATCH
    out = torch.empty(len(inputs), weight.rows)
    inputs = inputs.float().contiguous()
    scratch = ctypes.create_string_buffer(library.sec_scratch(len(inputs), weight.columns, 1 << weight.kind))
    source, target = (ctypes.cast(tensor.data_ptr(), _FLOATS) for tensor in (inputs, out))
    library.sec_product(
        pool and pool.pointer,
        weight.matrix,
        scratch,
        source,
        weight.columns,
        len(inputs),
        target,
        weight.rows,
    )
    return out
