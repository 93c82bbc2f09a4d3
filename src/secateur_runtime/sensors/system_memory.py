"""Memory as the kernel counts it: what this process may use, and what processes and their children hold."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from secateur_runtime.sensors import Sensor
from secateur_runtime.sensors.cgroup import Cgroup
from secateur_runtime.sensors.machine import MachineMemory

_PAGE = os.sysconf("SC_PAGE_SIZE")


def tree_bytes(pid: int) -> int:
    """Return the resident bytes of a process and its descendants; 0 where there is no /proc.

    A page that several processes share counts once for each.
    """
    return sum(_resident(one) for one in _tree(pid))


@dataclass(frozen=True, slots=True)
class SystemMemory:
    """Memory that this process may use: that of the machine, or of the control group that limits it.

    total: bytes. free: bytes that can be had without swapping and without being killed; never negative.
    """

    total: int
    free: int


def system_memory(sensors: Sequence[Sensor] = (MachineMemory(), Cgroup())) -> SystemMemory:
    """Return the tightest of the bounds on memory.

    sensors: what to ask; the machine, and every control group above this process.
    """
    bounds = [bound for sensor in sensors if (bound := sensor()) is not None]
    return SystemMemory(
        total=min(bound.limit for bound in bounds), free=max(0, min(bound.free for bound in bounds))
    )


def _tree(pid: int) -> Iterator[int]:
    yield pid
    # Gone meanwhile.
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{thread}/children").read_text().split():
                yield from _tree(int(child))


def _resident(pid: int) -> int:
    with suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    return 0
