"""Attention of several requests at once, each to its own keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from secateur.runtime.elastic.cache import Cache

NAME = "secateur_elastic"
"""The attention implementation as transformers' registry knows it; no mask is registered, so transformers makes none."""


class Step:
    """One forward pass over the new tokens of some requests, laid one after another; stands where transformers wants a cache.

    requests: caches, and how many new tokens each gets.
    """

    def __init__(self, requests: Sequence[tuple[Cache, int]]) -> None:
        self._spans, start = list[tuple[Cache, int, int]](), 0
        for cache, count in requests:
            self._spans.append((cache, start, start + count))
            start += count
        self._absent: dict[int, Tensor | None] = {}

    def update(self, keys: Tensor, values: Tensor, block: int, *_more: Any) -> tuple[Tensor, Tensor]:
        """Remember the new keys and values, `[1, groups, tokens, head_dim]`."""
        for cache, start, end in self._spans:
            cache.append(block, keys[0, :, start:end], values[0, :, start:end])
        return keys, values

    def attend(self, block: int, query: Tensor, keys: Tensor, _values: Tensor, scale: float, window: int | None, softcap: float | None) -> Tensor:
        """Return `[tokens, heads, head_dim]` for queries `[heads, tokens, head_dim]`; zeros for groups that a request does not use.

        window: how far back a token sees, itself included; softcap: bounds the scores.
        """
        found = query.new_zeros(query.shape[1], query.shape[0], query.shape[2])
        for cache, start, end in self._spans:
            heads = cache.groups[block] * (len(query) // len(keys))
            if heads:
                found[start:end, :heads] = _attend(cache, block, query[:heads, start:end], scale, window, softcap).transpose(0, 1)
        return found

    def absent(self, block: int) -> Tensor | None:
        """Return which of the new tokens, `[tokens, 1]`, belong to requests without attention in this block; None if none does."""
        if block not in self._absent:
            spans = [torch.full((end - start, 1), not cache.groups[block]) for cache, start, end in self._spans]
            lost = any(not cache.groups[block] for cache, _, _ in self._spans)
            self._absent[block] = torch.cat(spans) if lost else None
        return self._absent[block]

    def commit(self) -> None:
        """Count the new tokens, which every block has now."""
        for cache, start, end in self._spans:
            cache.tokens += end - start


class Attending(Protocol):
    """What answers the attention of all blocks during a pass."""

    def update(self, keys: Tensor, values: Tensor, block: int, *_more: Any) -> tuple[Tensor, Tensor]:
        """Take in new keys and values, `[1, groups, tokens, head_dim]`, and return those to attend to."""

    def attend(self, block: int, query: Tensor, keys: Tensor, values: Tensor, scale: float, window: int | None, softcap: float | None) -> Tensor:
        """Return `[tokens, heads, head_dim]` for queries `[heads, tokens, head_dim]` and what `update` returned, without the first dimension."""

    def absent(self, block: int) -> Tensor | None:
        """Return which of the new tokens, `[tokens, 1]`, must get nothing from this block's attention; None if all get something."""


class Seat:
    """Where that which answers now sits, for the attention of all blocks to find it."""

    step: Attending


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_others: Any,
) -> tuple[Tensor, None]:
    """Attend as transformers asks for it."""
    own: Any = module
    return own.seat.step.attend(own.layer_idx, query[0], key[0], value[0], scaling, sliding_window, softcap)[None], None


def _attend(cache: Cache, block: int, query: Tensor, scale: float, window: int | None, softcap: float | None) -> Tensor:
    """Return `[heads, tokens, head_dim]`; the queries of a group stand under each other, so that its keys are read once."""
    heads, count, width = query.shape
    end = cache.tokens + count
    begin = max(0, cache.tokens + 1 - window) if window else 0
    keys, values = cache.read(block, begin, end)
    mask = sight(cache.tokens, begin, end, window).repeat(heads // len(keys), 1) if count > 1 else None
    return looked(query.reshape(len(keys), -1, width), keys, values, mask, scale, softcap).reshape(heads, count, width)


def looked(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float, softcap: float | None) -> Tensor:
    """Return `[..., queries, head_dim]` for queries, keys and values of the same leading dimensions; mask: `[queries, keys]`."""
    if softcap is None:
        return scaled_dot_product_attention(query, keys, values, mask, scale=scale)
    scores = softcap * torch.tanh(query @ keys.transpose(-1, -2) * scale / softcap)
    return torch.softmax(scores if mask is None else scores.masked_fill(~mask, -torch.inf), -1) @ values


def sight(past: int, begin: int, end: int, window: int | None) -> Tensor:
    """Return `[new tokens, keys]`: whether a token sees a key."""
    sees, seen = torch.arange(past, end)[:, None], torch.arange(begin, end)[None]
    near = seen <= sees
    return near & (seen > sees - window) if window else near
