"""Costs of a ladder: for each level and each step, the bytes it frees and the quality it costs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from secateur_runtime.errors import UsageError
from secateur_runtime.ladder import half_of

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What a policy sees when it decides.

    batch: number of sequences. tokens: positions that each sequence holds, its prompt included. remaining:
    most tokens that each may still add.
    available: bytes that the model may take for weights, KV cache and activations together.
    kv_share: fraction of the bytes taken now that is KV cache. latency: recent seconds per token, 0 if
    unknown. level: present level of the ladder.
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
        """Cache positions of all sequences together when each has reached its end."""
        return self.batch * (self.tokens + self.remaining)


@dataclass(frozen=True, slots=True)
class Decision:
    """What a policy decided to remove.

    units: names of the steps to take, in the order of the ladder. level: their number if they are the first
    ones, else None.
    need: bytes that the model takes without them; it does not fit if that is more than `available`.
    """

    units: tuple[str, ...]
    level: int | None
    need: float


@dataclass(frozen=True, kw_only=True)
class Choices:
    """The arithmetic of a ladder of `n` steps; level `i` means that the first `i` steps are taken.

    ladder: digest of the ladder. units: what each step removes, `[n]`.
    losses: nats per token at each level, `[n + 1]`.
    prices: nats per token that a step costs on its own, `[n]`; they are assumed to add up and never negative.
    weights, cache, flops: bytes of weights, bytes of KV cache per position and operations per token at each
    level, `[n + 1]`.
    activations: returns the activation bytes of the whole model for a batch and a number of new tokens in
    each sequence.
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
        """For each step, the step of the same sub-block that must be taken before it, or None."""
        last: dict[str, int] = {}
        found: list[int | None] = []
        for index, unit in enumerate(self.units):
            found.append(last.get(half_of(unit)))
            last[half_of(unit)] = index
        return tuple(found)

    @cached_property
    def chains(self) -> tuple[tuple[int, ...], ...]:
        """The steps of each sub-block, in the order in which they must be taken."""
        sub_blocks: dict[str, list[int]] = {}
        for index, unit in enumerate(self.units):
            sub_blocks.setdefault(half_of(unit), []).append(index)
        return tuple(map(tuple, sub_blocks.values()))

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
        """Which steps remove KV cache; these cannot be undone during a request."""
        return self.freed_cache > 0

    def frees(self, seen: Observation) -> Floats:
        """Return the bytes that each step frees, at this batch and length, `[n]`."""
        return self.freed_weights + self.freed_cache * seen.positions

    def needs(self, seen: Observation) -> Floats:
        """Return the bytes that the model takes at each level when every sequence is complete, `[n + 1]`."""
        return self.weights + self.cache * seen.positions + self.activations(seen.batch, seen.tokens)

    def whole(self, batch: int, tokens: int) -> float:
        """Return the bytes that the whole model takes for `batch` sequences of `tokens` tokens each."""
        return float(self.weights[0] + self.cache[0] * batch * tokens + self.activations(batch, tokens))

    def missing(self, seen: Observation) -> float:
        """Return how many bytes the whole model lacks; zero or negative if it fits."""
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
        """Return the decision to take these steps, given in any order."""
        mask = np.zeros(len(self.units), dtype=bool)
        mask[list(steps)] = True
        first = int(mask.sum())
        taken = tuple(self.units[index] for index in sorted(steps))
        return Decision(taken, first if mask[:first].all() else None, self.need(mask, seen))

    def mask(self, units: Sequence[str]) -> Mask:
        """Return the mask of these steps, `[n]`.

        Raises UsageError for a step that is not in the ladder, or that lacks its predecessors.
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
                    f"{self.units[index]} cannot be removed without {self.units[earlier]}, which the ladder"
                    " removes first"
                )
        return mask

    @cached_property
    def _curve(self) -> tuple[Floats, Floats]:
        """Cumulative prices of the first steps, and the measured losses made non-decreasing."""
        return np.concatenate([[0.0], np.cumsum(self.prices)]), np.maximum.accumulate(self.losses)

    def loss(self, mask: Mask) -> float:
        """Return the loss without the steps of `mask`, nats per token.

        At a level of the ladder this is the measured loss. Otherwise it is interpolated at the point of the
        ladder where the prices have the same sum.
        """
        count = int(mask.sum())
        if mask[:count].all():
            return float(self.losses[count])
        sums, losses = self._curve
        return float(np.interp(float(self.prices @ mask), sums, losses))
