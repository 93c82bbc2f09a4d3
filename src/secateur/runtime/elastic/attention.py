"""Attention of several requests at once, each to its own keys and values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from secateur_runtime.decoder.kv_cache import ElasticCache

Frequencies = Callable[[int], tuple[Tensor, float]]
"""For a text of so many tokens: radians per position of each pair of channels, `[pairs]`, and the scale of
cosines and sines.
"""
Table = tuple[Tensor, Tensor]
"""Cosines and sines, `[tokens, 1, pairs]` each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """Constants of the attention of one block.

    head_dim: width of a head. scale: of scores. window: tokens that a token sees, itself included, 0 for all.
    softcap: bound of the scores, None for none. rotary: name of the rotary embedding, None for none.
    """

    head_dim: int
    scale: float
    window: int = 0
    softcap: float | None = None
    rotary: str | None = ""


class Attending(Protocol):
    """What computes the attention of all blocks during one forward pass."""

    def table(self, rotary: str) -> Table:
        """Return the rotary table of the new tokens."""

    def attend(self, block: int, queries: Tensor, keys: Tensor, values: Tensor, how: Sight) -> Tensor:
        """Return the attention output of the new tokens, `[tokens, heads, head_dim]`.

        queries: of that shape. keys, values: `[tokens, groups, head_dim]`.
        """

    def absent(self, block: int) -> Tensor | None:
        """Return which of the new tokens, `[tokens, 1]`, must get nothing from this block's attention.

        None if all get something.
        """


class ForwardStep:
    """One forward pass over the new tokens of some requests, laid one after another.

    requests: caches, and how many new tokens each gets. rotary: the model's rotary embeddings by name.
    """

    def __init__(
        self, requests: Sequence[tuple[ElasticCache, int]], rotary: Mapping[str, Frequencies]
    ) -> None:
        self._spans = list[tuple[ElasticCache, int, int]]()
        start = 0
        for cache, count in requests:
            self._spans.append((cache, start, start + count))
            start += count
        self._rotary = rotary
        self._tables: dict[str, Table] = {}
        self._absent: dict[int, Tensor | None] = {}

    def table(self, rotary: str) -> Table:
        """Return the rotary table of the new tokens, each at its position in its own request."""
        if rotary not in self._tables:
            rows = [(cache.tokens, cache.tokens + end - start) for cache, start, end in self._spans]
            parts = [table_of(torch.arange(begin, stop), *self._rotary[rotary](stop)) for begin, stop in rows]
            cosines, sines = zip(*parts, strict=True)
            self._tables[rotary] = torch.cat(cosines), torch.cat(sines)
        return self._tables[rotary]

    def attend(self, block: int, queries: Tensor, keys: Tensor, values: Tensor, how: Sight) -> Tensor:
        """Append the new keys and values to the caches, and attend to all cached ones.

        The output is zero for groups that a request does not use.
        """
        found = torch.zeros_like(queries)
        per_group = queries.shape[1] // keys.shape[1]
        for cache, start, end in self._spans:
            cache.append(block, keys[start:end].transpose(0, 1), values[start:end].transpose(0, 1))
            heads = cache.groups[block] * per_group
            if heads:
                found[start:end, :heads] = _attend(
                    cache, block, queries[start:end, :heads].transpose(0, 1), how
                ).transpose(0, 1)
        return found

    def absent(self, block: int) -> Tensor | None:
        """Return which of the new tokens belong to requests without attention in this block.

        None if none does.
        """
        if block not in self._absent:
            spans = [
                torch.full((end - start, 1), not cache.groups[block]) for cache, start, end in self._spans
            ]
            lost = any(not cache.groups[block] for cache, _, _ in self._spans)
            self._absent[block] = torch.cat(spans) if lost else None
        return self._absent[block]

    def commit(self) -> None:
        """Advance each cache past its new tokens, once every block has stored them."""
        for cache, start, end in self._spans:
            cache.tokens += end - start


def table_of(positions: Tensor, radians: Tensor, scale: float) -> Table:
    """Return cosines and sines at positions, `[tokens]`, for what `Frequencies` return."""
    angles = (positions[:, None].float() * radians)[:, None]
    return angles.cos() * scale, angles.sin() * scale


def rotated(heads: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Return `heads` `[tokens, heads, head_dim]` with the pairs of channels `i` and `i + pairs` turned.

    What follows them stays.
    """
    pairs = cosines.shape[-1]
    first, second, rest = heads.split([pairs, pairs, heads.shape[-1] - 2 * pairs], -1)
    return torch.cat((first * cosines - second * sines, second * cosines + first * sines, rest), -1)


def _attend(cache: ElasticCache, block: int, queries: Tensor, how: Sight) -> Tensor:
    """Return the attention output of one request, `[heads, tokens, head_dim]`.

    The queries of a group are stacked, so that its keys are read once.
    """
    heads, count, width = queries.shape
    end = cache.tokens + count
    begin = max(0, cache.tokens + 1 - how.window) if how.window else 0
    keys, values = cache.read(block, begin, end)
    mask = seen(cache.tokens, begin, end, how.window).repeat(heads // len(keys), 1) if count > 1 else None
    return looked(queries.reshape(len(keys), -1, width), keys, values, mask, how).reshape(heads, count, width)


def looked(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, how: Sight) -> Tensor:
    """Return scaled dot-product attention, `[..., queries, head_dim]`, with an optional softcap.

    queries, keys, values: of the same leading dimensions. mask: `[queries, keys]`, True where a query sees a
    key.
    """
    if how.softcap is None:
        return scaled_dot_product_attention(queries, keys, values, mask, scale=how.scale)
    scores = how.softcap * torch.tanh(queries @ keys.transpose(-1, -2) * how.scale / how.softcap)
    return torch.softmax(scores if mask is None else scores.masked_fill(~mask, -torch.inf), -1) @ values


def seen(past: int, begin: int, end: int, window: int) -> Tensor:
    """Return the causal mask `[new tokens, keys]`, True where a token sees a key.

    New tokens begin at position `past`, keys at `begin`; both end at `end`. window: as in `Sight`.
    """
    new = torch.arange(past, end)[:, None]
    known = torch.arange(begin, end)[None]
    near = known <= new
    return near & (known > new - window) if window else near
