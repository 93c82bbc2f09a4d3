"""Quantized weights as GGUF blocks, value by value: nothing is rounded a second time."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from numpy.typing import NDArray
from torch import Tensor

from secateur.export.gguf.types import BLOCK
from secateur_runtime.errors import UsageError
from secateur_runtime.kernels.quantized import Codes, Grid

_SYMMETRIC = {4: Kind.Q4_0, 5: Kind.Q5_0, 8: Kind.Q8_0}
_ASYMMETRIC = {4: Kind.Q4_1, 5: Kind.Q5_1}
_HALF = BLOCK // 2


def kind_of_grid(name: str, grid: Grid) -> Kind:
    """Return the least type that holds a grid exactly; raises UsageError where none does."""
    kinds = _SYMMETRIC if grid.symmetric else _ASYMMETRIC
    kind = next((kind for bits, kind in kinds.items() if grid.bits <= bits), None)
    if kind is None or grid.group % BLOCK:
        raise UsageError(
            f"{name} lies on the grid {grid}, which no type of GGUF holds: export with --type f16, or"
            f" quantize with --group {BLOCK}"
        )
    return kind


def pack_codes(name: str, codes: Codes) -> NDArray[Any]:
    """Return a quantized weight as GGUF blocks, `[out_features, bytes of a row]`.

    The type is the one that `kind_of_grid` names.

    Raises UsageError where a scale or an offset is no float16.
    """
    kind = kind_of_grid(name, codes.grid)
    repeat = codes.grid.group // BLOCK
    scales = _half(name, codes.scales.float()).repeat_interleave(repeat, 1)
    values = codes.values.view(len(codes.values), -1, BLOCK)
    if kind == Kind.Q8_0:
        return _joined(scales[..., None].view(torch.uint8), values.view(torch.uint8))
    # GGUF stores symmetric values with an offset of half the range; the others may have any offset, and
    # the least is exact.
    wide = codes.grid.bits > 4
    lowest = codes.grid.lowest if codes.zeros is not None else -16 if wide else -8
    fields = [scales[..., None]]
    if codes.zeros is not None:
        offsets = codes.scales.float() * (lowest - codes.zeros.float())
        fields.append(_half(name, offsets).repeat_interleave(repeat, 1)[..., None])
    unsigned = (values.to(torch.int16) - lowest).to(torch.uint8)
    high = [_fifth_bits(unsigned)] if wide else []
    low = unsigned & 15
    return _joined(
        *(field.view(torch.uint8) for field in fields), *high, low[..., :_HALF] | low[..., _HALF:] << 4
    )


def _half(name: str, values: Tensor) -> Tensor:
    half = values.half()
    if not torch.equal(half.float(), values):
        raise UsageError(f"the scales of {name} are finer than GGUF stores them: export with --type f16")
    return half


def _fifth_bits(unsigned: Tensor) -> Tensor:
    """Return the fifth bit of each of 32 codes, as the four bytes of a little-endian word."""
    bits = np.packbits((unsigned >> 4).numpy(), axis=-1, bitorder="little")
    return torch.from_numpy(bits)


def _joined(*parts: Tensor) -> NDArray[Any]:
    blocks = torch.cat(parts, -1)
    return blocks.reshape(len(blocks), -1).numpy()
