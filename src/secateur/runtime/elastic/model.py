"""A model whose level changes while it serves: memory goes back to the system, and comes again."""

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
    """What a change of level did: bytes of weights and caches given back (negative.

    Taken), seconds it took.
    """

    freed: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ElasticParts:
    """What an elastic model is made of.

    embed: its embedding; halves: by group (`3.kv`, `3.ffn`), in the order in which states pass them, what
    changes with the level.
    norm, head: what makes logits of states; softcap: bounds them, None for nothing. rotary: its rotary
    embeddings by name.
    sizes: key-value heads and their width, of each block; limit: positions that the model knows; vocab_size:
    tokens.
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
        """Return a cache for a request that uses so many key-value groups of each block, and has at most `limit` tokens."""
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
        for half in self.halves.values():
            states = half(states, step) if half.units else states
        return states

    def logits(self, states: Tensor) -> Tensor:
        """Return the logits `[tokens, vocab_size]` that states after the last block mean, float32."""
        found = self.head(self.norm(states))
        return found if self.softcap is None else torch.tanh(found / self.softcap) * self.softcap


class Held(Protocol):
    """A half of a block; units: how many it computes with, none where it is gone."""

    units: int

    def hold(self, units: int) -> int:
        """Have so many units in memory, and compute with them.

        Return the bytes that this frees (negative: takes).
        """


class Computing(Protocol):
    """What an elastic model computes with: a `ElasticParts` in torch, or one in the kernels.

    See there what each member is.
    """

    @property
    def halves(self) -> Mapping[str, Held]:
        """What changes with the level."""

    @property
    def limit(self) -> int:
        """Positions that the model knows."""

    @property
    def vocab_size(self) -> int:
        """Tokens."""

    @property
    def sizes(self) -> Sequence[tuple[int, int]]:
        """Key-value heads and their width, of each block."""

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
        """Go to a level of the ladder; raises LadderError if there is none such."""
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

        Raises UsageError if they are none, or more than the cache has room for.
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

        Raises UsageError if a request is closed, has no room for its tokens, or has some that the model does
        not know.
        """
        with self._lock:
            for cache, tokens in requests:
                self._check(cache, tokens)
            return self._body.forward(requests)

    def logprobs(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Return the natural logarithm of the probability of each next token, `[vocab_size]`, after `tokens`."""
        with self.open(len(tokens)) as cache:
            found: NDArray[np.float32] = (
                torch.log_softmax(self.prefill(tokens, cache).double(), -1).float().numpy()
            )
        return found

    def generate(self, prompt: Sequence[int], max_tokens: int) -> Generated:
        """Return the `max_tokens` likeliest tokens after `prompt`."""
        with self.open(len(prompt) + max_tokens) as cache:
            start = time.perf_counter()
            found = [int(self.prefill(prompt, cache).argmax())]
            first = time.perf_counter()
            while len(found) < max_tokens:
                found.append(int(self.decode([found[-1]], [cache])[0].argmax()))
        return Generated(tuple(found), first - start, time.perf_counter() - first)

    def memory(self) -> Memory:
        """Return what the process holds."""
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
        half = self._body.halves.get(f"{block}.kv")
        return half.units if half else 0

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
