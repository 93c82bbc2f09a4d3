"""The type in which a pruned model is stored."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from secateur.core.graph import TensorInfo
from secateur_runtime.errors import UsageError, nearest

DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_STORED: Mapping[str, torch.dtype] = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def storage_type(asked: str, tensors: Mapping[str, TensorInfo]) -> torch.dtype:
    """Return the type to store weights in.

    asked: a key of `DTYPES`, or `auto`: the type of most weights, bfloat16 if they are quantized.
    Raises UsageError for another name.
    """
    if asked in DTYPES:
        return DTYPES[asked]
    if asked != "auto":
        raise UsageError(f"unknown dtype {asked!r}{nearest(asked, DTYPES)}; known: auto, {', '.join(DTYPES)}")
    weight: dict[str, int] = {}
    for info in tensors.values():
        weight[info.dtype] = weight.get(info.dtype, 0) + info.numel
    return _STORED.get(max(weight, key=lambda name: weight[name]), torch.bfloat16)
