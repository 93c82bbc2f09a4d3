"""Attention over caches against its formula in float64, for requests of different lengths and groups."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from secateur.runtime.elastic.attention import ForwardStep, Sight, looked, rotated, seen, table_of
from secateur_runtime.decoder.kv_cache import ElasticCache

WIDTH = 8


def _cache(groups: int) -> ElasticCache:
    return ElasticCache([groups], [(2, WIDTH)], 16, torch.float32, lambda cache: cache.empty())


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _formula(queries: Tensor, keys: Tensor, values: Tensor, past: int, sight: Sight) -> Tensor:
    """Return softmax(cap(q k scale)) v, token by token and head by head, in float64."""
    found = torch.zeros(queries.shape, dtype=torch.float64)
    per_group = queries.shape[1] // keys.shape[1]
    for token in range(len(queries)):
        first = max(0, past + token + 1 - sight.window) if sight.window else 0
        near = slice(first, past + token + 1)
        for head in range(queries.shape[1]):
            group = head // per_group
            scores = keys[near, group].double() @ queries[token, head].double() * sight.scale
            if sight.softcap:
                scores = sight.softcap * torch.tanh(scores / sight.softcap)
            found[token, head] = scores.softmax(0) @ values[near, group].double()
    return found


@pytest.mark.parametrize("window", [0, 3])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_a_step_is_the_formula(window: int, softcap: float | None) -> None:
    """Two requests in one pass, of which the second has read four tokens before and uses one group only."""
    sight = Sight(head_dim=WIDTH, scale=WIDTH**-0.5, window=window, softcap=softcap)
    first, second = _cache(2), _cache(1)
    keys, values = _random(10, 2, WIDTH, seed=1), _random(10, 2, WIDTH, seed=2)
    queries = _random(10, 4, WIDTH, seed=3)
    before = ForwardStep([(second, 4)], {})
    before.attend(0, queries[:4], keys[:4], values[:4], sight)
    before.commit()
    assert second.tokens == 4
    step = ForwardStep([(first, 5), (second, 1)], {})
    found = step.attend(0, queries[4:], keys[4:], values[4:], sight)
    expected = _formula(queries[4:9], keys[4:9], values[4:9], 0, sight)
    torch.testing.assert_close(found[:5].double(), expected, atol=1e-5, rtol=0)
    own = [0, 1, 2, 3, 9]
    expected = _formula(queries[9:], keys[own], values[own], 4, sight)[:, :2]
    torch.testing.assert_close(found[5:, :2].double(), expected, atol=1e-5, rtol=0)
    assert not found[5:, 2:].any(), "the group that the second request does not use"
    step.commit()
    assert (first.tokens, second.tokens) == (5, 5)


def test_tables_follow_the_length_of_each_request() -> None:
    asked: list[int] = []

    def frequencies(length: int) -> tuple[Tensor, float]:
        asked.append(length)
        return torch.tensor([1.0, 0.1]), 0.5

    old, new = _cache(2), _cache(2)
    old.tokens = 3
    step = ForwardStep([(old, 1), (new, 2)], {"": frequencies})
    cosines, sines = step.table("")
    angles = torch.tensor([[3, 0.3], [0, 0], [1, 0.1]])[:, None]
    torch.testing.assert_close(cosines, angles.cos() * 0.5)
    torch.testing.assert_close(sines, angles.sin() * 0.5)
    step.table("")
    assert asked == [4, 2], "each table is made once"


def test_rotation_turns_pairs_and_leaves_the_rest() -> None:
    heads = _random(1, 1, 6)
    turned = rotated(heads, *table_of(torch.tensor([2]), torch.tensor([math.pi / 4, 0.0]), 1.0))
    expected = torch.tensor(
        [-heads[0, 0, 2], heads[0, 0, 1], heads[0, 0, 0], heads[0, 0, 3], *heads[0, 0, 4:]]
    )
    torch.testing.assert_close(turned[0, 0], expected)


def test_masks() -> None:
    assert seen(2, 0, 4, 0).tolist() == [[True, True, True, False], [True, True, True, True]]
    assert seen(2, 1, 4, 2).tolist() == [[True, True, False], [False, True, True]]


def test_no_softcap_is_a_very_wide_one() -> None:
    queries, keys, values = (_random(2, 3, WIDTH, seed=seed) for seed in range(3))
    plain = looked(queries, keys, values, seen(0, 0, 3, 0), Sight(head_dim=WIDTH, scale=0.3))
    wide = looked(queries, keys, values, seen(0, 0, 3, 0), Sight(head_dim=WIDTH, scale=0.3, softcap=1e4))
    torch.testing.assert_close(plain, wide)


def test_requests_without_attention_are_told() -> None:
    step = ForwardStep([(_cache(2), 2), (_cache(0), 1)], {})
    absent = step.absent(0)
    assert absent is not None
    assert absent.flatten().tolist() == [False, False, True]
    assert ForwardStep([(_cache(2), 2)], {}).absent(0) is None
