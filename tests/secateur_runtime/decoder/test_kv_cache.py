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
