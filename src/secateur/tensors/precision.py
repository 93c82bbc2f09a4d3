"""Precision of matrix products: float32, or bfloat16 products summed in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

from secateur.core.context import Arithmetic


@contextmanager
def arithmetic(kind: Arithmetic) -> Iterator[None]:
    """Run matrix products of float32 tensors in `kind` until exit; inputs and results stay float32.

    oneDNN ignores `bfloat16` on a CPU that has no such instructions and computes in float32 there.
    """
    products: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = products.fp32_precision
    products.fp32_precision = "bf16" if kind == "bfloat16" else "ieee"
    try:
        yield
    finally:
        products.fp32_precision = before


def has_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16.

    oneDNN says yes for every CPU with AVX-512. Without the instructions its bfloat16 products take four times
    as long as those in float32.
    """
    found = torch.cpu.get_capabilities()
    if found["architecture"] == "x86_64":
        return bool(found["avx512_bf16"] or found["amx_bf16"])
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def mixed() -> AbstractContextManager[Any]:
    """Run a forward pass for training in bfloat16, if matrix products run in bfloat16.

    It takes 0.6 of the time of float32 tensors with bfloat16 products. Its rounding is small compared with
    the noise of a gradient. Weights and their gradients stay float32. Without such instructions nothing
    changes.
    """
    products: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    return torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16() and products.fp32_precision == "bf16")
