"""The memory controller: shrinks a model at once when memory is short, and restores it after a delay.

To shrink removes units, so the level of the ladder rises; to restore lowers it. Level 0 is the whole model.
"""

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
"""Share of time spent waiting for memory at which nothing is restored."""
_PLENTY = 1 << 60


@dataclass(frozen=True, slots=True)
class Load:
    """Tokens that a sequence holds now, and at most at its end."""

    now: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerSettings:
    """Margins of the memory controller.

    headroom: share of the limit kept free for memory that is not counted; at least `least` bytes.
    restore_delay: seconds for which enough memory must have been free before units are restored.
    watch: False ignores memory altogether.
    most_loss: nats per token above the whole model, by the ladder, beyond which no request is answered. An
    increase of 1 multiplies perplexity by 2.7, which is where the sentences of SmolLM2 begin to fall apart.
    Requests wait instead, and a model without requests shrinks as far as it must.
    """

    headroom: float = 0.05
    least: int = 24_000_000
    restore_delay: float = 3.0
    watch: bool = True
    most_loss: float = 1.0


class MemoryController:
    """Reads memory, decides and changes the level; one thread uses it, except for `fits`.

    shrinks, restores: how often the bytes of weights fell (or stayed equal) and rose.
    most: most bytes that the model could have taken so far.
    latency: recent seconds per token, set by the caller.
    """

    def __init__(
        self,
        model: StepModel,
        choices: Choices,
        policy: Policy,
        senses: Callable[[], Sensed],
        settings: ControllerSettings,
    ) -> None:
        self._model = model
        self._choices = choices
        self._policy = policy
        self._senses = senses
        self._settings = settings
        self._good = choices.losses <= choices.losses[0] + settings.most_loss
        self._looked = -math.inf
        self._restorable_since: float | None = None
        self.sensed = Sensed(())
        self.most = 0.0
        self.shrinks = 0
        self.restores = 0
        self.decide_seconds = 0.0
        self.change_seconds = 0.0
        self.latency = 0.0
        self._masked: tuple[tuple[str, ...], Mask] = (), choices.mask(())
        self.look(0)

    @property
    def levels(self) -> int:
        """Number of levels."""
        return len(self._choices.units) + 1

    @property
    def loss(self) -> float:
        """Nats per token without the removed units, by the measurements of the ladder."""
        return self._choices.loss(self._mask(self._model.units))

    def look(self, cache: int, *, now: bool = False) -> None:
        """Read memory, at most every 20 milliseconds unless `now`; cache: bytes that sequences hold."""
        if now or time.monotonic() - self._looked >= _EVERY:
            self._looked = time.monotonic()
            self.sensed = self._senses()
            self.most = max(self.most, self.available(cache))

    def available(self, cache: int, headrooms: float = 1) -> float:
        """Return the bytes that the model may take: the free bytes less the headroom, plus what it holds.

        cache: bytes that sequences hold. headrooms: multiple of the headroom to keep free.
        """
        settings = self._settings
        held = self._model.weights + cache
        bounds = self.sensed.bounds if settings.watch else ()
        free = [
            bound.free - headrooms * max(settings.least, settings.headroom * bound.limit) for bound in bounds
        ]
        return min(free, default=_PLENTY) + held

    def fits(self, loads: Sequence[Load], available: float) -> bool:
        """Return whether sequences fit to their ends at an acceptable loss."""
        seen = self._seen(loads, available)
        if (self._choices.needs(seen)[self._good] <= available).any():
            return True
        wanted = self._mask(self._decided(seen))
        return self._acceptable(wanted) and self._choices.need(wanted, seen) <= available

    def settle(self, loads: Sequence[Load], cache: int) -> None:
        """Shrink or restore the model as the policy decides for these sequences.

        cache: bytes that running sequences hold.
        """
        seen = self._seen(loads, self.available(cache))
        now = self._mask(self._model.units)
        wanted = self._wanted(loads, seen)
        shrinks = set(wanted) > set(self._model.units)
        unacceptable = bool(loads) and not self._acceptable(now)
        if shrinks or unacceptable or self._choices.need(now, seen) > seen.available:
            self._restorable_since = None
            self._go(wanted)
            return
        wanted = self._wanted(loads, self._seen(loads, self.available(cache, 2)))
        if self._choices.loss(self._mask(wanted)) >= self._choices.loss(now):
            self._restorable_since = None
        elif self._restorable():
            self._restorable_since = None
            self._go(wanted)

    def _wanted(self, loads: Sequence[Load], seen: Observation) -> tuple[str, ...]:
        """Return the units to remove.

        These are the ones that the policy chooses. If a request runs and their loss is not acceptable, they
        are those of the best acceptable level.
        """
        wanted = self._decided(seen)
        if not loads or self._acceptable(self._mask(wanted)):
            return wanted
        needs = np.where(self._good, self._choices.needs(seen), np.inf)
        fits = needs <= seen.available
        level = np.where(fits, self._choices.losses, np.inf).argmin() if fits.any() else needs.argmin()
        return self._choices.units[: int(level)]

    def _acceptable(self, mask: Mask) -> bool:
        return self._choices.loss(mask) <= float(self._choices.losses[0]) + self._settings.most_loss

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
        before = self._model.weights
        self._model.set_units(units)
        self.change_seconds = time.perf_counter() - started
        self.shrinks += self._model.weights <= before
        self.restores += self._model.weights > before
        self._looked = -math.inf

    def _restorable(self) -> bool:
        """Return whether memory has been free, without a stall, for the restore delay."""
        if self.sensed.stalled >= _STALLED:
            self._restorable_since = None
            return False
        self._restorable_since = self._restorable_since or time.monotonic()
        return time.monotonic() - self._restorable_since >= self._settings.restore_delay

    def _decided(self, seen: Observation) -> tuple[str, ...]:
        started = time.perf_counter()
        decision = self._policy(seen)
        self.decide_seconds = time.perf_counter() - started
        return decision.units

    def _seen(self, loads: Sequence[Load], available: float) -> Observation:
        """Return the observation of a batch of equal sequences that takes at least as much memory."""
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
