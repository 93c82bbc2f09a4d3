"""How weights are stored in a GGUF file: which type each tensor gets, and its bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from numpy.typing import NDArray
from torch import Tensor

from secateur.export.gguf.type_names import BITS, K_QUANTS, PACKED
from secateur_runtime.errors import UsageError, nearest

BLOCK = 32
TYPES = {name: Kind[name.upper()] for name in BITS}
_PLAIN = {Kind.F32: torch.float32, Kind.F16: torch.float16, Kind.BF16: torch.bfloat16}
_EXACT = {"": Kind.F16, "F16": Kind.F16, "BF16": Kind.BF16}
# gguf's arithmetic makes several copies of its input; malloc reuses copies of 64 KiB, and maps larger ones
# anew each time.
_SLAB = 1 << 14


def type_named(name: str) -> Kind:
    """Return the type of most weights under the option `name`.

    Raises UsageError for one that is not known.
    """
    known = (*TYPES, *K_QUANTS, PACKED)
    if name not in known:
        raise UsageError(f"unknown --type {name!r}{nearest(name, known)}; known: {', '.join(known)}")
    # A quantizer program makes the K-quants out of 16-bit floats.
    return TYPES.get(name, Kind.F16)


def kind_of(kind: Kind, shape: tuple[int, ...], *, output: bool) -> Kind:
    """Return the type of one tensor.

    llama.cpp keeps vectors in float32, and the output matrix finer than the rest.
    """
    if len(shape) < 2:
        return Kind.F32
    return Kind.Q8_0 if output and kind not in _PLAIN else kind


def exact_kind(shape: tuple[int, ...], dtype: str) -> Kind:
    """Return the type that holds a tensor without rounding; vectors are float32.

    dtype: name of the tensor's type in safetensors, or empty for zeros.
    """
    return _EXACT.get(dtype, Kind.F32) if len(shape) > 1 else Kind.F32


def check_width(name: str, shape: tuple[int, ...], kind: Kind) -> None:
    """Raise UsageError if rows of `shape[-1]` weights do not fill the blocks of `kind`."""
    width = shape[-1]
    if kind not in _PLAIN and width % BLOCK:
        fitting = f"{width // BLOCK * BLOCK} or {-(-width // BLOCK) * BLOCK}" if width > BLOCK else str(BLOCK)
        raise UsageError(
            f"{kind.name} stores weights in blocks of {BLOCK}, and {name} is {width} wide: use --type f16, or"
            f" prune to a multiple of {BLOCK} ({fitting})"
        )


def nbytes(shape: tuple[int, ...], kind: Kind) -> int:
    """Return the bytes that a tensor of `shape` takes."""
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    return int(np.prod(shape)) // block * block_bytes


def pack(name: str, tensor: Tensor, kind: Kind) -> NDArray[Any]:
    """Return the bytes of a float32 tensor as `kind`, flat.

    Raises UsageError where a weight does not fit it.
    """
    if kind in _PLAIN:
        plain = tensor.to(_PLAIN[kind])
        if plain.dtype != tensor.dtype and not finite(plain):
            raise UsageError(
                f"{name} has weights beyond the range of {kind.name.lower()}: use --type bf16 or f32"
            )
        return plain.contiguous().reshape(-1).view(torch.uint8).numpy()
    return _slabs(tensor.numpy(), _SLAB, lambda slab: gguf.quants.quantize(slab, kind))


def finite(tensor: Tensor) -> bool:
    """Return whether no element is infinite or NaN, in one pass without a copy."""
    return bool(torch.isfinite(torch.stack(torch.aminmax(tensor))).all())


def rounded(name: str, tensor: Tensor, kind: Kind) -> Tensor:
    """Return a float32 tensor as it reads back after it was stored as `kind`."""
    if kind in _PLAIN:
        return tensor.to(_PLAIN[kind]).float()
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    packed = pack(name, tensor, kind)
    plain = _slabs(packed, _SLAB // block * block_bytes, lambda slab: gguf.quants.dequantize(slab, kind))
    return torch.from_numpy(plain).reshape(tensor.shape)


def _slabs(values: NDArray[Any], step: int, change: Callable[[NDArray[Any]], NDArray[Any]]) -> NDArray[Any]:
    flat = np.ascontiguousarray(values).reshape(-1)
    # One long row each: gguf works through its input 16 rows at a time, which is slow for short ones.
    return np.concatenate(
        [change(flat[start : start + step].reshape(1, -1))[0] for start in range(0, len(flat), step)]
    )
