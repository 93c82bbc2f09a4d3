"""Types of tensors, and their bytes: gguf's own quantizer is the reference."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind

from secateur.export.gguf.type_names import BITS
from secateur.export.gguf.types import (
    TYPES,
    check_width,
    exact_kind,
    finite,
    kind_of,
    nbytes,
    pack,
    rounded,
    type_named,
)
from secateur_runtime.errors import UsageError


def _weights(rows: int = 3, columns: int = 64) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", TYPES)
def test_bytes_are_those_of_gguf(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a tensor is worked on in several slabs."""
    kind = TYPES[name]
    weights = _weights()
    expected = gguf.quants.quantize(weights.numpy(), kind).reshape(-1).view(np.uint8)
    assert pack("w", weights, kind).tobytes() == expected.tobytes()
    assert nbytes((3, 64), kind) == expected.nbytes == BITS[name] * 3 * 64 / 8
    read = gguf.quants.dequantize(
        expected.reshape(3, -1) if name[0] == "q" else gguf.quants.quantize(weights.numpy(), kind), kind
    )
    torch.testing.assert_close(rounded("w", weights, kind), torch.from_numpy(np.array(read)), rtol=0, atol=0)
    monkeypatch.setattr("secateur.export.gguf.types._SLAB", 64)
    assert pack("w", weights, kind).tobytes() == expected.tobytes()
    torch.testing.assert_close(rounded("w", weights, kind), torch.from_numpy(np.array(read)), rtol=0, atol=0)


def test_which_type_a_tensor_gets() -> None:
    assert kind_of(Kind.Q4_0, (64,), output=False) == Kind.F32
    assert kind_of(Kind.Q4_0, (8, 64), output=False) == Kind.Q4_0
    assert kind_of(Kind.Q4_0, (8, 64), output=True) == Kind.Q8_0
    assert kind_of(Kind.BF16, (8, 64), output=True) == Kind.BF16
    assert [exact_kind((8, 64), dtype) for dtype in ("F16", "BF16", "F32", "")] == [
        *(Kind.F16, Kind.BF16, Kind.F32, Kind.F16)
    ]
    assert exact_kind((64,), "F16") == Kind.F32


def test_names() -> None:
    assert type_named("q5_1") == Kind.Q5_1
    assert type_named("q4_k_m") == Kind.F16, "a quantizer program makes it of 16-bit floats"
    with pytest.raises(UsageError, match=r"^unknown --type 'q4_9' \(did you mean q4_1\?\); known: f32, "):
        type_named("q4_9")


def test_widths() -> None:
    check_width("w", (8, 64), Kind.Q4_0)
    check_width("w", (8, 33), Kind.F16)
    with pytest.raises(
        UsageError, match=r"w is 100 wide: use --type f16, or prune to a multiple of 32 \(96 or 128\)"
    ):
        check_width("w", (8, 100), Kind.Q4_0)
    with pytest.raises(UsageError, match=r"multiple of 32 \(32\)"):
        check_width("w", (8, 20), Kind.Q4_0)


def test_weights_beyond_a_type() -> None:
    weights = _weights()
    weights[1, 2] = 1e5
    with pytest.raises(UsageError, match=r"^w has weights beyond the range of f16: use --type bf16 or f32$"):
        pack("w", weights, Kind.F16)
    assert len(pack("w", weights, Kind.BF16)) == weights.numel() * 2


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_finite(value: float) -> None:
    weights = _weights()
    assert finite(weights)
    weights[2, 3] = value
    assert not finite(weights)
