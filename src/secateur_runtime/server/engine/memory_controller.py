"""Keep of a model what memory allows: less at once, more only when there has been room for a while."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from secateur_runtime.ladder_costs import Mask
from secateur_runtime.policies import Choices, Observation, Policy
from secateur_runtime.sensors import Sensed
from secateur_runtime.server.engine.step_model import StepModel

_EVERY = 0.02
_STALLED = 0.1
"""Share of time waiting for memory at which nothing is taken again."""
_PLENTY = 1 << 60


@dataclass(frozen=True, slots=True)
class Load:
    """Tokens that a sequence holds now, and at most at its end."""

    now: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerSettings:
    """How careful to be.

    headroom: share of the limit that is kept free, for what is not counted; at least `least` bytes.
    calm: seconds for which there must have been room before the model takes more. watch: False never looks at
    memory at all.
    most_loss: nats per token, by the ladder and above the whole model, beyond which nobody is answered: one
    more makes perplexity 2.7 times
        what it was, which is where SmolLM2's sentences begin to fall apart. Requests wait instead, and a
        model that answers nobody shrinks as far as it must.
    """

    headroom: float = 0.05
    least: int = 24_000_000
    calm: float = 3.0
    watch: bool = True
    most_loss: float = 1.0


class MemoryController:
    """Senses, decides and changes the level; one thread uses it, but for `fits`."""

    def __init__(
        self,
        model: StepModel,
        choices: Choices,
        policy: Policy,
        senses: Callable[[], Sensed],
        care: ControllerSettings,
    ) -> None:
        self._model = model
        self._choices = choices
        self._policy = policy
        self._senses = senses
        self._care = care
        self._good = choices.losses <= choices.losses[0] + care.most_loss
        self._looked = -math.inf
        self._roomy_since: float | None = None
        self.sensed = Sensed(())
        self.most = 0.0
        self.downs = 0
        self.ups = 0
        self.decide_seconds = 0.0
        self.change_seconds = 0.0
        self.latency = 0.0
        self._masked: tuple[tuple[str, ...], Mask] = (), choices.mask(())
        self.look(0)

    @property
    def levels(self) -> int:
        """How many levels there are."""
        return len(self._choices.units) + 1

    @property
    def loss(self) -> float:
        """Nats per token without what is gone, as far as it was measured."""
        return self._choices.loss(self._mask(self._model.units))

    def look(self, cache: int, *, now: bool = False) -> None:
        """Sense memory, at most every few milliseconds unless `now`; cache: bytes that sequences hold."""
        if now or time.monotonic() - self._looked >= _EVERY:
            self._looked = time.monotonic()
            self.sensed = self._senses()
            self.most = max(self.most, self.available(cache))

    def available(self, cache: int, headrooms: float = 1) -> float:
        """Return bytes that the model may take: what is free, less the headroom, and what it has."""
        held = self._model.weights + cache
        rooms = self.sensed.rooms if self._care.watch else ()
        free = [
            room.free - headrooms * max(self._care.least, self._care.headroom * room.limit) for room in rooms
        ]
        return min(free, default=_PLENTY) + held

    def fits(self, loads: Sequence[Load], available: float) -> bool:
        """Return whether sequences fit to their ends while all are answered well enough."""
        seen = self._seen(loads, available)
        if (self._choices.needs(seen)[self._good] <= available).any():
            return True
        wanted = self._mask(self._decided(seen))
        return self._well(wanted) and self._choices.need(wanted, seen) <= available

    def settle(self, loads: Sequence[Load], cache: int) -> None:
        """Take from the model what the policy says for these sequences, or give it back.

        cache: bytes that those under way hold.
        """
        seen = self._seen(loads, self.available(cache))
        now = self._mask(self._model.units)
        wanted = self._wanted(loads, seen)
        less = set(wanted) > set(self._model.units)
        ill = bool(loads) and not self._well(now)
        if less or ill or self._choices.need(now, seen) > seen.available:
            self._roomy_since = None
            self._go(wanted)
            return
        wanted = self._wanted(loads, self._seen(loads, self.available(cache, 2)))
        if self._choices.loss(self._mask(wanted)) >= self._choices.loss(now):
            self._roomy_since = None
        elif self._calm():
            self._roomy_since = None
            self._go(wanted)

    def _wanted(self, loads: Sequence[Load], seen: Observation) -> tuple[str, ...]:
        """Return what is to go: what the policy says, or where somebody is answered and that is too much, the best level that is good enough."""
        wanted = self._decided(seen)
        if not loads or self._well(self._mask(wanted)):
            return wanted
        needs = np.where(self._good, self._choices.needs(seen), np.inf)
        fits = needs <= seen.available
        level = np.where(fits, self._choices.losses, np.inf).argmin() if fits.any() else needs.argmin()
        return self._choices.units[: int(level)]

    def _well(self, mask: Mask) -> bool:
        return self._choices.loss(mask) <= float(self._choices.losses[0]) + self._care.most_loss

    def _mask(self, units: Sequence[str]) -> Mask:
        known, mask = self._masked
        if known != tuple(units):
            mask = self._choices.mask(units)
            self._masked = tuple(units), mask
        return mask

    def _go(self, units: Sequence[str]) -> None:
        if set(units) == set(self._model.units):
            return
        started = time.perf_counter()
        before = self.loss
        self._model.set_units(units)
        self.change_seconds = time.perf_counter() - started
        self.downs = self.downs + (self.loss >= before)
        self.ups = self.ups + (self.loss < before)
        self._looked = -math.inf

    def _calm(self) -> bool:
        """Return whether there has been room, without a stall, for long enough."""
        if self.sensed.stalled >= _STALLED:
            self._roomy_since = None
            return False
        self._roomy_since = self._roomy_since or time.monotonic()
        return time.monotonic() - self._roomy_since >= self._care.calm

    def _decided(self, seen: Observation) -> tuple[str, ...]:
        started = time.perf_counter()
        decision = self._policy(seen)
        self.decide_seconds = time.perf_counter() - started
        return decision.units

    def _seen(self, loads: Sequence[Load], available: float) -> Observation:
        """Sum sequences of different lengths up as a batch of equal ones that takes no less."""
        batch = max(1, len(loads))
        tokens = max(1, math.ceil(sum(load.now for load in loads) / batch))
        end = math.ceil(sum(load.end for load in loads) / batch)
        level = len(self._model.units)
        cache = float(self._choices.cache[level]) * sum(load.now for load in loads)
        return Observation(
            batch=batch,
            tokens=tokens,
            remaining=max(0, end - tokens),
            available=available,
            kv_share=cache / (cache + self._model.weights) if cache else 0.0,
            latency=self.latency,
            level=level,
        )
