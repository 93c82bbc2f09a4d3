"""Memory that is filled from a file and leaves the process, as the system counts it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.runtime.elastic.steps import anonymous

from secateur_runtime.decoder.kv_cache import ElasticCache
from secateur_runtime.decoder.prefix_weights import FileSpan, Prefix, combination, product
from secateur_runtime.decoder.releasable_memory import PAGE, ReleasableMemory, WeightFile
from secateur_runtime.errors import SourceError

MB = 1 << 20


def test_what_is_released_has_left_the_process() -> None:
    room = ReleasableMemory(32 * MB)
    before = anonymous()
    room.tensor(0, (32 * MB,), torch.uint8).fill_(1)
    assert anonymous() - before == pytest.approx(32 * MB, rel=0.05)
    assert room.release(8 * MB + 1, 32 * MB) == 24 * MB - PAGE
    assert anonymous() - before == pytest.approx(8 * MB, rel=0.1)
    left = room.tensor(0, (32 * MB,), torch.uint8)
    assert (int(left[8 * MB]), int(left[8 * MB + PAGE])) == (1, 0)
    assert room.release(1, PAGE) == 0


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


def test_a_file_that_ends_too_soon_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(100))
    with pytest.raises(SourceError, match="ends at byte 100"):
        Prefix(ReleasableMemory(PAGE), 0, WeightFile(path), FileSpan(0, (10, 20), torch.uint8), 1).hold(10)
    with pytest.raises(SourceError, match="cannot read"):
        WeightFile(tmp_path / "none")


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


def test_a_cache_takes_pages_as_it_fills_and_gives_them_back() -> None:
    cache = ElasticCache([4, 2], [(4, 64), (2, 64)], 4000, torch.float32, ElasticCache.empty)
    assert cache.limit >= 4000
    before = anonymous()
    cache.append(0, torch.ones(1).expand(4, 3000, 64), torch.full((1,), 2.0).expand(4, 3000, 64))
    cache.append(1, torch.ones(1).expand(2, 3000, 64), torch.full((1,), 2.0).expand(2, 3000, 64))
    cache.tokens = 3000
    assert cache.bytes == 2 * 6 * -(-3000 * 256 // PAGE) * PAGE
    assert anonymous() - before == pytest.approx(cache.bytes, rel=0.05)
    whole = cache.bytes
    assert cache.shrink(0, 1) == whole // 2
    assert cache.shrink(0, 1) == 0
    assert anonymous() - before == pytest.approx(cache.bytes, rel=0.05)
    keys, values = cache.read(0, 0, 3000)
    assert (keys.shape, float(keys.min()), float(values.min())) == ((1, 3000, 64), 1.0, 2.0)
    assert cache.close() == whole // 2
    assert (cache.bytes, cache.closed) == (0, True)
    assert anonymous() - before < 0.02 * whole
