"""The storage type that a name or the tensors of a model ask for."""

from __future__ import annotations

import pytest
import torch

from secateur.core.graph import TensorInfo
from secateur.tensors.storage_dtype import DTYPES, storage_type
from secateur_runtime.errors import UsageError

# Fewer tensors, but more weights, are float16.
MIXED = {
    "norm": TensorInfo((4,), "F32"),
    "bias": TensorInfo((4,), "F32"),
    "weight": TensorInfo((4, 4), "F16"),
}


@pytest.mark.parametrize("name", DTYPES)
def test_a_name_is_a_type_of_torch(name: str) -> None:
    assert storage_type(name, MIXED) == getattr(torch, name)


def test_auto_is_the_type_of_most_weights() -> None:
    assert storage_type("auto", MIXED) is torch.float16
    assert storage_type("auto", {**MIXED, "head": TensorInfo((8, 8), "F32")}) is torch.float32


@pytest.mark.parametrize("stored", ["BF16", "Q4_1", "int4-g32", "F64"])
def test_auto_stores_quantized_and_wide_weights_as_bfloat16(stored: str) -> None:
    assert storage_type("auto", {**MIXED, "head": TensorInfo((8, 8), stored)}) is torch.bfloat16


def test_another_name_is_one_line() -> None:
    with pytest.raises(
        UsageError, match=r"unknown dtype 'float61' \(did you mean float16\?\); known: auto"
    ) as caught:
        storage_type("float61", MIXED)
    assert "\n" not in str(caught.value)
