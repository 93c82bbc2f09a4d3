"""Sensors of the memory that this process may use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class MemoryBound:
    """One bound on memory.

    name: what sets the bound. limit: bytes. used: bytes under it that cannot be reclaimed without harm,
    those of this process included; unmapped pages of files are not counted.
    """

    name: str
    limit: int
    used: int

    @property
    def free(self) -> int:
        """Bytes that may still be taken; negative where too many are."""
        return self.limit - self.used


class Sensor(Protocol):
    """Senses one bound; takes well under a millisecond."""

    def __call__(self) -> MemoryBound | None:
        """Return the bound as it is now, or None if there is none."""


@dataclass(frozen=True, slots=True)
class Sensed:
    """The readings of all sensors at one moment.

    bounds: every bound. stalled: share of the last ten seconds in which some task waited for memory, 0 if the
    kernel does not report it.
    """

    bounds: tuple[MemoryBound, ...]
    stalled: float = 0.0

    @property
    def tightest(self) -> MemoryBound | None:
        """The bound with the least free memory, or None if there is none."""
        return min(self.bounds, key=lambda bound: bound.free, default=None)


class Senses:
    """Several sensors of memory, read together."""

    def __init__(self, sensors: Sequence[Sensor], pressure: Sequence[str] = ()) -> None:
        self._sensors = sensors
        self._pressure = pressure

    def __call__(self) -> Sensed:
        """Read every sensor."""
        from secateur_runtime.sensors.pressure import stalled

        bounds = tuple(bound for sensor in self._sensors if (bound := sensor()) is not None)
        return Sensed(bounds, max(map(stalled, self._pressure), default=0.0))


def sizes(text: str) -> dict[str, int]:
    """Return `name -> number` of lines such as `anon 4096` or `MemTotal: 1024 kB` (in bytes then).

    Other lines are ignored.
    """
    found = {}
    for line in text.splitlines():
        name, *rest = line.split()[:3] or [""]
        if rest and rest[0].isdecimal():
            found[name.rstrip(":")] = int(rest[0]) * (1024 if rest[1:] == ["kB"] else 1)
    return found
