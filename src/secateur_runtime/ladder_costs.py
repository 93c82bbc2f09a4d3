"""What a ladder offers at one moment.

For each level and each unit, the bytes it frees and the quality it costs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from secateur_runtime.errors import UsageError

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What a policy sees when it decides.

    batch: sequences at once. tokens: positions that each holds already, its prompt included; remaining: how
    many more may come.
    available: bytes that the model may take, for weights, KV cache and activations together.
    kv_share: share of what it takes now that is KV cache. latency: seconds per token lately, 0 where none is
    known.
    level: of the ladder, at present.
    """

    batch: int
    tokens: int
    remaining: int = 0
    available: float
    kv_share: float = 0.0
    latency: float = 0.0
    level: int = 0

    @property
    def positions(self) -> int:
        """Cache positions of all sequences once each has come to its end."""
        return self.batch * (self.tokens + self.remaining)


@dataclass(frozen=True, slots=True)
class Decision:
    """What goes.

    units: names of the ladder's steps that are taken, in its order. level: how many, if they are the first
    ones; else None.
    need: bytes that the model will take with them gone; it does not fit if that is more than `available`.
    """

    units: tuple[str, ...]
    level: int | None
    need: float


@dataclass(frozen=True, kw_only=True)
class Choices:
    """The arithmetic of a ladder of `n` steps; level `i` means that the first `i` steps are taken.

    ladder: digest of the ladder. units: what each step takes away, `[n]`. losses: nats per token at each
    level, `[n + 1]`.
    prices: nats per token that a step costs on its own, `[n]`, taken to add up; never negative.
    weights, cache, flops: at each level, `[n + 1]`: bytes of weights, bytes of KV cache per position,
    operations per token.
    activations: bytes of the whole model's, for a batch and a number of new tokens in each sequence.
    """

    ladder: str
    units: tuple[str, ...]
    losses: Floats
    prices: Floats
    weights: Floats
    cache: Floats
    flops: Floats
    activations: Callable[[int, int], float]

    def __post_init__(self) -> None:
        count = len(self.units)
        sizes = [len(self.losses), len(self.weights), len(self.cache), len(self.flops), len(self.prices) + 1]
        if sizes != [count + 1] * 5 or (self.prices < 0).any():
            raise UsageError(
                f"a ladder of {count} steps needs {count + 1} figures for its levels and a price, not"
                " negative, for each step"
            )

    @cached_property
    def before(self) -> tuple[int | None, ...]:
        """For each step, the earlier one in the same half of the same block, without which it cannot be taken."""
        last: dict[str, int] = {}
        found: list[int | None] = []
        for index, unit in enumerate(self.units):
            found.append(last.get(half_of(unit)))
            last[half_of(unit)] = index
        return tuple(found)

    @cached_property
    def chains(self) -> tuple[tuple[int, ...], ...]:
        """The steps of each half of a block, in the order in which they must be taken."""
        halves: dict[str, list[int]] = {}
        for index, unit in enumerate(self.units):
            halves.setdefault(half_of(unit), []).append(index)
        return tuple(map(tuple, halves.values()))

    @cached_property
    def freed_weights(self) -> Floats:
        """Bytes of weights that each step frees."""
        return -np.diff(self.weights)

    @cached_property
    def freed_cache(self) -> Floats:
        """Bytes of KV cache per position that each step frees."""
        return -np.diff(self.cache)

    @cached_property
    def freed_flops(self) -> Floats:
        """Operations per token that each step saves."""
        return -np.diff(self.flops)

    @cached_property
    def caching(self) -> Mask:
        """Which steps take cache away, so that they cannot be taken back while a request lasts."""
        return self.freed_cache > 0

    def frees(self, seen: Observation) -> Floats:
        """Return the bytes that each step frees, at this batch and length, `[n]`."""
        return self.freed_weights + self.freed_cache * seen.positions

    def needs(self, seen: Observation) -> Floats:
        """Return the bytes that the model takes at each level once every sequence has come to its end, `[n + 1]`."""
        return self.weights + self.cache * seen.positions + self.activations(seen.batch, seen.tokens)

    def whole(self, batch: int, tokens: int) -> float:
        """Return the bytes that the whole model takes for a batch of sequences of so many tokens each."""
        return float(self.weights[0] + self.cache[0] * batch * tokens + self.activations(batch, tokens))

    def missing(self, seen: Observation) -> float:
        """Return how many bytes the whole model is short of; not positive if it fits."""
        whole = self.weights[0] + self.cache[0] * seen.positions + self.activations(seen.batch, seen.tokens)
        return float(whole - seen.available)

    def need(self, mask: Mask, seen: Observation) -> float:
        """Return the bytes that the model takes without the steps of `mask`."""
        return seen.available + self.missing(seen) - float(self.frees(seen) @ mask)

    def level(self, level: int, seen: Observation) -> Decision:
        """Return the decision to take the first `level` steps."""
        need = (
            self.weights[level]
            + self.cache[level] * seen.positions
            + self.activations(seen.batch, seen.tokens)
        )
        return Decision(self.units[:level], level, float(need))

    def decide(self, steps: Collection[int], seen: Observation) -> Decision:
        """Return the decision to take these steps, in whatever order they are given."""
        mask = np.zeros(len(self.units), dtype=bool)
        mask[list(steps)] = True
        first = int(mask.sum())
        taken = tuple(self.units[index] for index in sorted(steps))
        return Decision(taken, first if mask[:first].all() else None, self.need(mask, seen))

    def mask(self, units: Sequence[str]) -> Mask:
        """Return which steps these are.

        Raises UsageError for one that the ladder has not, or without the ones before it.
        """
        place = {unit: index for index, unit in enumerate(self.units)}
        if strange := [unit for unit in units if unit not in place]:
            raise UsageError(f"the ladder has no step {strange[0]!r}")
        mask = np.zeros(len(self.units), dtype=bool)
        mask[[place[unit] for unit in units]] = True
        for index in np.flatnonzero(mask):
            earlier = self.before[index]
            if earlier is not None and not mask[earlier]:
                raise UsageError(
                    f"{self.units[index]} cannot go without {self.units[earlier]}, which the ladder takes"
                    " first"
                )
        return mask

    @cached_property
    def _curve(self) -> tuple[Floats, Floats]:
        """Summed prices of the first steps against the loss that was measured, made to rise."""
        return np.concatenate([[0.0], np.cumsum(self.prices)]), np.maximum.accumulate(self.losses)

    def loss(self, mask: Mask) -> float:
        """Return nats per token without the steps of `mask`: as measured at a level.

        Else the loss of the ladder where prices sum to the same.
        """
        count = int(mask.sum())
        if mask[:count].all():
            return float(self.losses[count])
        sums, losses = self._curve
        return float(np.interp(float(self.prices @ mask), sums, losses))


def half_of(unit: str) -> str:
    """Return the half of a block that a step belongs to.

    `5.ffn:1152` is of `5.ffn`, `5.kv:2` and `5.attn` are of `5.attn`.
    """
    block, _, kind = unit.partition(".")
    return f"{block}.{'ffn' if kind.startswith('ffn') else 'attn'}"
