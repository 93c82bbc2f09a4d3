"""Prefixes of stored weights, and products with them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from secateur_runtime.decoder.prefix_weights import FileSpan, Prefix, combination, product
from secateur_runtime.decoder.releasable_memory import PAGE, ReleasableMemory, WeightFile


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_prefix_is_read_again_where_it_was_released(dtype: torch.dtype, tmp_path: Path) -> None:
    """Units of three rows that do not end on pages; another tensor follows, and must not suffer."""
    weight = torch.randn(600, 100).to(dtype)
    path = tmp_path / "file"
    path.write_bytes(b"12345" + bytes(weight.view(torch.uint8).numpy().data))
    stored = FileSpan(5, (600, 100), dtype)
    room = ReleasableMemory(2 * (stored.bytes + PAGE))
    start = -(-stored.bytes // PAGE) * PAGE
    first, second = (Prefix(room, at, WeightFile(path), stored, 3) for at in (0, start))
    assert (first.hold(200), second.hold(200)) == (-stored.bytes, -stored.bytes)
    for units in (50, 51, 7, 180, 0, 200):
        before = len(first.held)
        freed = first.hold(units)
        assert torch.equal(first.held, weight[: units * 3])
        assert torch.equal(second.held, weight)
        gone = (before - units * 3) * stored.row_bytes
        assert gone - PAGE < freed <= gone + PAGE
    first.show(30)
    assert torch.equal(first.held, weight[:90])
    first.show(500)
    assert torch.equal(first.held, weight)


@pytest.mark.parametrize("tokens", [1, 5])
def test_products_of_bfloat16_rows_are_exact(tokens: int) -> None:
    """Against float64; more rows than are converted at once."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(3000, 200, generator=generator).bfloat16()
    narrow, wide = (
        torch.randn(tokens, 200, generator=generator),
        torch.randn(tokens, 3000, generator=generator),
    )
    torch.testing.assert_close(
        product(narrow, rows).double(), narrow.double() @ rows.double().T, atol=1e-4, rtol=0
    )
    torch.testing.assert_close(
        combination(wide, rows).double(), wide.double() @ rows.double(), atol=1e-3, rtol=0
    )
