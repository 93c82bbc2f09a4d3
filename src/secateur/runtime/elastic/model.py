"""A model whose level changes while it serves: removed weights free memory, restored ones take it."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateur.runtime import Generated, Memory
from secateur.runtime.elastic.attention import Attending, ForwardStep, Frequencies
from secateur.runtime.elastic.sub_block import Norm, SubBlock
from secateur.runtime.process import process_memory
from secateur_runtime.decoder.kv_cache import ElasticCache
from secateur_runtime.decoder.prefix_weights import Lookup, Rows
from secateur_runtime.errors import UsageError
from secateur_runtime.ladder import Ladder

CHUNK = 256
"""Tokens of a prompt that pass at once: what lies between blocks takes memory with their number."""


@dataclass(frozen=True, slots=True)
class Change:
    """Effect of a change of level.

    freed: bytes of weights and caches given back (negative: taken). seconds: time it took.
    """

    freed: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ElasticParts:
    """The parts of an elastic model.

    embed: the embedding. halves: sub-blocks by group (`3.kv`, `3.ffn`), in the order of the forward pass.
    norm, head: the final norm and the output matrix. softcap: bound of the logits, None for none.
    rotary: rotary embeddings by name. sizes: key-value heads and head width of each block.
    limit: most positions. vocab_size: number of tokens.
    """

    embed: Lookup
    halves: Mapping[str, SubBlock]
    norm: Norm
    head: Rows
    softcap: float | None
    rotary: Mapping[str, Frequencies]
    sizes: Sequence[tuple[int, int]]
    limit: int
    vocab_size: int

    def cache(
        self, groups: Sequence[int], limit: int, kv: torch.dtype, closing: Callable[[ElasticCache], int]
    ) -> ElasticCache:
        """Return an empty cache for one request.

        groups: key-value heads that it uses in each block. limit: most tokens. kv: type of keys and values.
        closing: called when it closes.
        """
        return ElasticCache(groups, self.sizes, limit, kv, closing)

    def forward(self, requests: Sequence[tuple[ElasticCache, Sequence[int]]]) -> Tensor:
        """Let every request read its new tokens.

        Return the logits `[requests, vocab_size]` after the last of each.
        """
        step = ForwardStep([(cache, len(tokens)) for cache, tokens in requests], self.rotary)
        ends = torch.tensor([len(tokens) for _, tokens in requests]).cumsum(0) - 1
        states = self.states(torch.tensor([token for _, tokens in requests for token in tokens]), step)
        step.commit()
        return self.logits(states[ends])

    def states(self, tokens: Tensor, step: Attending) -> Tensor:
        """Return the states of tokens, `[tokens]`, after the last block, `[tokens, hidden_size]`."""
        states = self.embed(tokens)
        for sub_block in self.halves.values():
            states = sub_block(states, step) if sub_block.units else states
        return states

    def logits(self, states: Tensor) -> Tensor:
        """Return the logits `[tokens, vocab_size]` that states after the last block mean, float32."""
        found = self.head(self.norm(states))
        return found if self.softcap is None else torch.tanh(found / self.softcap) * self.softcap


class Held(Protocol):
    """A sub-block; units: how many it computes with, 0 where it is removed."""

    units: int

    def hold(self, units: int) -> int:
        """Keep `units` units in memory and compute with them.

        Return the bytes that this frees (negative: takes).
        """


class Computing(Protocol):
    """The interface of what an elastic model computes with; `ElasticParts` is the one in torch.

    The members mean what they mean there.
    """

    @property
    def halves(self) -> Mapping[str, Held]:
        """Sub-blocks by group, in the order of the forward pass."""

    @property
    def limit(self) -> int:
        """Most positions."""

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""

    @property
    def sizes(self) -> Sequence[tuple[int, int]]:
        """Key-value heads and head width of each block."""

    def cache(
        self, groups: Sequence[int], limit: int, kv: torch.dtype, closing: Callable[[ElasticCache], int]
    ) -> ElasticCache:
        """Return an empty cache."""

    def forward(self, requests: Sequence[tuple[ElasticCache, Sequence[int]]]) -> Tensor:
        """Let every request read its new tokens."""


class Elastic:
    """A causal language model on the CPU whose level may change between any two calls, from any thread.

    units: steps of the ladder that are taken; level: how many they are, the first ones unless `set_units`
    took others. Freed attention comes back only for requests that begin later, FFNs for all at once.
    """

    name = "elastic"

    def __init__(
        self, body: Computing, ladder: Ladder, *, level: int = 0, kv: torch.dtype = torch.float32
    ) -> None:
        self.ladder = ladder
        self._kv = kv
        self._body = body
        self._lock = threading.RLock()
        self._open: weakref.WeakSet[ElasticCache] = weakref.WeakSet()
        self.set_level(level)

    @property
    def level(self) -> int:
        """The number of steps that are taken."""
        return len(self.units)

    @property
    def limit(self) -> int:
        """Tokens that a request can have, prompt and answer."""
        return self._body.limit

    @property
    def vocab_size(self) -> int:
        """Number of different tokens."""
        return self._body.vocab_size

    @property
    def caches(self) -> tuple[ElasticCache, ...]:
        """Those that are open."""
        with self._lock:
            return tuple(self._open)

    def set_level(self, level: int) -> Change:
        """Apply a level of the ladder; raises LadderError if it has no such level."""
        self.ladder.at(level)
        return self.set_units([rung.unit for rung in self.ladder.rungs[:level]])

    def set_units(self, units: Sequence[str]) -> Change:
        """Take these steps of the ladder and no others, whichever they are.

        Raises LadderError as `Ladder.kept_without` does.
        """
        kept = self.ladder.kept_without(units)
        with self._lock:
            start = time.perf_counter()
            freed = self._resize(kept)
            self.units = tuple(units)
            return Change(freed, time.perf_counter() - start)

    def open(self, limit: int | None = None) -> ElasticCache:
        """Begin a request of at most `limit` tokens (by default, and at most, as many as the model knows)."""
        with self._lock:
            groups = [self._attention(block) for block in range(len(self._body.sizes))]
            cache = self._body.cache(groups, min(limit or self.limit, self.limit), self._kv, self._close)
            self._open.add(cache)
            return cache

    def prefill(self, tokens: Sequence[int], cache: ElasticCache) -> Tensor:
        """Let a request read tokens, `CHUNK` at a time.

        Return the logits `[vocab_size]` after the last, float32.

        Raises UsageError for no tokens, or more than the cache has space for.
        """
        if not tokens:
            raise UsageError("nothing to read: a prompt has at least one token")
        found = [
            self.forward([(cache, tokens[start : start + CHUNK])]) for start in range(0, len(tokens), CHUNK)
        ]
        return found[-1][0]

    def decode(self, tokens: Sequence[int], caches: Sequence[ElasticCache]) -> Tensor:
        """Let every request read one more token.

        Return the logits `[requests, vocab_size]` after it, float32.
        """
        return self.forward([(cache, [token]) for token, cache in zip(tokens, caches, strict=True)])

    @torch.inference_mode()
    def forward(self, requests: Sequence[tuple[ElasticCache, Sequence[int]]]) -> Tensor:
        """Let every request read its new tokens in one pass.

        Return the logits `[requests, vocab_size]` after the last of each.

        Raises UsageError if a request is closed, has no space for its tokens, or has a token that the model
        does not know.
        """
        with self._lock:
            for cache, tokens in requests:
                self._check(cache, tokens)
            return self._body.forward(requests)

    def logprobs(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Return the log-probabilities (nats) of the token after `tokens`, `[vocab_size]`."""
        with self.open(len(tokens)) as cache:
            found: NDArray[np.float32] = (
                torch.log_softmax(self.prefill(tokens, cache).double(), -1).float().numpy()
            )
        return found

    def generate(self, prompt: Sequence[int], max_tokens: int) -> Generated:
        """Return `max_tokens` tokens after `prompt`, chosen greedily."""
        with self.open(len(prompt) + max_tokens) as cache:
            start = time.perf_counter()
            found = [int(self.prefill(prompt, cache).argmax())]
            first = time.perf_counter()
            while len(found) < max_tokens:
                found.append(int(self.decode([found[-1]], [cache])[0].argmax()))
        return Generated(tuple(found), first - start, time.perf_counter() - first)

    def memory(self) -> Memory:
        """Return the memory of this process."""
        return process_memory()

    def _resize(self, kept: Mapping[str, int]) -> int:
        """Free first, then take, so that the two never add up."""
        freed = 0
        order = sorted(kept, key=lambda name: kept[name] - self._body.halves[name].units)
        for name in order:
            block, _, kind = name.partition(".")
            freed += self._body.halves[name].hold(kept[name])
            if kind == "kv":
                freed += sum(cache.shrink(int(block), kept[name]) for cache in self._open)
        return freed

    def _attention(self, block: int) -> int:
        attention = self._body.halves.get(f"{block}.kv")
        return attention.units if attention else 0

    def _close(self, cache: ElasticCache) -> int:
        with self._lock:
            self._open.discard(cache)
            return cache.empty()

    def _check(self, cache: ElasticCache, tokens: Sequence[int]) -> None:
        if cache.closed:
            raise UsageError("this request is closed: open another")
        if cache.tokens + len(tokens) > cache.limit:
            raise UsageError(
                f"{cache.tokens + len(tokens)} tokens do not fit in a request of at most {cache.limit}"
            )
        for token in tokens:
            if not 0 <= token < self.vocab_size:
                raise UsageError(f"token {token} is none of the {self.vocab_size} that this model knows")
