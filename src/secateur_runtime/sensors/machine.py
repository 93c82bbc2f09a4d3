"""The memory of the whole machine, and a budget for this process alone."""

from __future__ import annotations

from pathlib import Path

import psutil

from secateur_runtime.sensors import MemoryBound, sizes

_MEMINFO = "/proc/meminfo"


class MachineMemory:
    """The memory of the machine: its total, and what of it is not available."""

    def __init__(self, path: str = _MEMINFO) -> None:
        self._path = Path(path)

    def __call__(self) -> MemoryBound | None:
        """Return the bound, or None if the system does not report one."""
        try:
            rows = sizes(self._path.read_text(encoding="ascii"))
        except OSError:
            memory = psutil.virtual_memory()
            return MemoryBound("machine", memory.total, memory.total - memory.available)
        if "MemTotal" not in rows or "MemAvailable" not in rows:
            return None
        return MemoryBound("machine", rows["MemTotal"], rows["MemTotal"] - rows["MemAvailable"])


class ProcessBudget:
    """A limit that the user sets for this process, in bytes.

    The memory of the process is its resident set size.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._process = psutil.Process()

    def __call__(self) -> MemoryBound:
        """Return the bound."""
        return MemoryBound("budget", self._limit, self._process.memory_info().rss)
