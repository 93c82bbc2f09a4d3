"""A small deterministic model with levels, a ladder for it, and senses that a test sets."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from secateur_runtime.policies import Choices
from secateur_runtime.sensors import MemoryBound, Sensed
from secateur_runtime.server.engine.sampling import Logits

VOCABULARY = 384
PER_TOKEN = 100
UNITS = ("1.ffn:2", "2.ffn:2", "3.ffn:2")
WEIGHTS = (100_000, 80_000, 60_000, 40_000)


class FakeCache:
    """The tokens themselves."""

    def __init__(self, limit: int) -> None:
        self.tokens: list[int] = []
        self.limit = limit
        self.closed = False

    @property
    def bytes(self) -> int:
        return 0 if self.closed else PER_TOKEN * len(self.tokens)

    def close(self) -> None:
        self.closed = True


class FakeModel:
    """Its next token is decided by all tokens before it, and by nothing else."""

    name = "fake"
    context = 256
    vocabulary = VOCABULARY

    def __init__(self, *, seconds: float = 0.0) -> None:
        self.units: Sequence[str] = ()
        self.levels: list[int] = []
        self.opened: list[FakeCache] = []
        self.batches: list[int] = []
        self.chunks: list[int] = []
        self.seconds = seconds
        self.broken = False

    @property
    def weights(self) -> int:
        return WEIGHTS[len(self.units)]

    def set_units(self, units: Sequence[str]) -> None:
        assert tuple(units) == UNITS[: len(units)], "the fake model takes levels only"
        self.units = tuple(units)
        self.levels.append(len(units))

    def open(self, limit: int) -> FakeCache:
        self.opened.append(FakeCache(limit))
        return self.opened[-1]

    def prefill(self, tokens: Sequence[int], cache: FakeCache) -> Logits:
        self.chunks.append(len(tokens))
        time.sleep(self.seconds)
        return self._read(tokens, cache)

    def decode(self, tokens: Sequence[int], caches: Sequence[FakeCache]) -> Sequence[Logits]:
        if self.broken:
            raise RuntimeError("broken")
        self.batches.append(len(tokens))
        time.sleep(self.seconds)
        return [self._read([token], cache) for token, cache in zip(tokens, caches, strict=True)]

    def give_back(self) -> None:
        pass

    @staticmethod
    def _read(tokens: Sequence[int], cache: FakeCache) -> Logits:
        assert not cache.closed
        cache.tokens += tokens
        assert len(cache.tokens) <= cache.limit
        return logits_after(cache.tokens)


def logits_after(tokens: Sequence[int]) -> Logits:
    """What the fake model predicts; tokens below 3 are special and never likely."""
    draw = np.random.default_rng([len(tokens), *tokens])
    logits = draw.normal(size=VOCABULARY).astype(np.float32) * 3
    logits[:3] = -1e4
    return logits


def continued(prompt: Sequence[int], count: int) -> list[int]:
    """The `count` likeliest tokens after a prompt."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(logits_after(tokens).argmax()))
    return tokens[len(prompt) :]


def fake_choices() -> Choices:
    """The arithmetic of the fake model's levels."""
    weights = np.array(WEIGHTS, dtype=np.float64)
    return Choices(
        ladder="sha256:0",
        units=UNITS,
        losses=np.array([2.0, 2.1, 2.3, 3.0]),
        prices=np.array([0.1, 0.2, 0.7]),
        weights=weights,
        cache=np.full(4, float(PER_TOKEN)),
        flops=weights,
        activations=lambda batch, tokens: 0.0,
    )


class FakeSenses:
    """One bound, whose free bytes a test sets, less what the fake model takes beyond its start."""

    def __init__(self, free: int = 1 << 40) -> None:
        self.limit = free
        self.model: FakeModel | None = None
        self.stalled = 0.0

    def __call__(self) -> Sensed:
        taken = self.model.weights + sum(cache.bytes for cache in self.model.opened) if self.model else 0
        return Sensed((MemoryBound("test", self.limit, taken),), self.stalled)
