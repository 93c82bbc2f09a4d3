"""Memory of processes and of all that they started, as the kernel counts it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_MEMINFO = Path("/proc/meminfo")


def tree_bytes(pid: int) -> int:
    """Return the resident bytes of a process and its descendants; pages that several share count for each.

    0 where there is no /proc.
    """
    return sum(_resident(one) for one in _tree(pid))


def free_bytes() -> int:
    """Return the bytes of memory that can be had without swapping."""
    if _MEMINFO.exists():
        rows = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        return int(rows["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * _PAGE // 2


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
