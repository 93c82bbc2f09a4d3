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

    def __call__(self) -> MemoryBound:
        """Return the bound; psutil knows it where the file is missing (macOS) or lacks a row."""
        try:
            rows = sizes(self._path.read_text(encoding="ascii"))
            total = rows["MemTotal"]
            available = rows["MemAvailable"]
        except (OSError, KeyError):
            memory = psutil.virtual_memory()
            total = memory.total
            available = memory.available
        return MemoryBound("machine", total, total - available)


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
