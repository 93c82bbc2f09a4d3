"""The cache of a request, as the system counts its memory."""

from __future__ import annotations

import pytest
import torch
from tests.runtime.elastic.steps import anonymous

from secateur_runtime.decoder.kv_cache import ElasticCache
from secateur_runtime.decoder.releasable_memory import PAGE


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


def test_new_tokens_are_read_back_in_float32_and_not_counted_before_all_blocks_have_them() -> None:
    cache = ElasticCache([2, 0], [(2, 4), (2, 4)], 8, torch.float16, ElasticCache.empty)
    keys = torch.arange(2 * 3 * 4).view(2, 3, 4).float() / 7
    cache.append(0, keys, -keys)
    assert cache.tokens == 0
    cache.tokens = 3
    cache.append(0, keys[:, :1] + 1, keys[:, :1])
    found, values = cache.read(0, 1, 4)
    assert found.dtype == values.dtype == torch.float32
    assert torch.equal(found, torch.cat([keys[:, 1:], keys[:, :1] + 1], 1).half().float())
    assert torch.equal(values, torch.cat([-keys[:, 1:], keys[:, :1]], 1).half().float())


def test_a_cache_never_regrows_and_closes_itself() -> None:
    with ElasticCache([4], [(4, 64)], 100, torch.float32, ElasticCache.empty) as cache:
        cache.tokens = 100
        assert cache.shrink(0, 3) == 2 * 100 * 64 * 4 // PAGE * PAGE + 2 * PAGE * bool(100 * 64 * 4 % PAGE)
        assert cache.shrink(0, 4) == 0
        assert cache.groups == [3]
    assert (cache.closed, cache.bytes, cache.groups) == (True, 0, [0])
