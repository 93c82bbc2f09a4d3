"""What the machine lets this process have, sensed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class MemoryBound:
    """One bound on memory.

    name: who sets it. limit: bytes. used: bytes under it that cannot go without harm, this process's
    included; pages of files that nobody has mapped are not.
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
        """Return the bound as it is now, or None where there is none."""


@dataclass(frozen=True, slots=True)
class Sensed:
    """What all sensors said at one moment.

    rooms: every bound. stalled: share of the last ten seconds in which something waited for memory, 0 where
    the kernel does not tell.
    """

    rooms: tuple[MemoryBound, ...]
    stalled: float = 0.0

    @property
    def tightest(self) -> MemoryBound | None:
        """The bound that leaves least, or None where there is none."""
        return min(self.rooms, key=lambda room: room.free, default=None)


class Senses:
    """Sensors of memory, asked together."""

    def __init__(self, sensors: Sequence[Sensor], pressure: Sequence[str] = ()) -> None:
        self._sensors = sensors
        self._pressure = pressure

    def __call__(self) -> Sensed:
        """Ask every sensor."""
        from secateur_runtime.sensors.pressure import stalled

        rooms = tuple(room for sensor in self._sensors if (room := sensor()) is not None)
        return Sensed(rooms, max(map(stalled, self._pressure), default=0.0))


def sizes(text: str) -> dict[str, int]:
    """Return `name -> number` of lines such as `anon 4096` or `MemTotal: 1024 kB` (in bytes then).

    Other lines are left out.
    """
    found = {}
    for line in text.splitlines():
        name, *rest = line.split()[:3] or [""]
        if rest and rest[0].isdecimal():
            found[name.rstrip(":")] = int(rest[0]) * (1024 if rest[1:] == ["kB"] else 1)
    return found
