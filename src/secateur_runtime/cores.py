"""How many threads can run at once."""

from __future__ import annotations

import os

from secateur_runtime.errors import UsageError


def usable_cores() -> int:
    """Return how many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_threads(count: int, cores: int | None = None) -> None:
    """Raise UsageError for fewer threads than one, or more than cores.

    cores: those that may be used; by default those of this process.
    """
    usable = usable_cores() if cores is None else cores
    if not 1 <= count <= usable:
        raise UsageError(f"--threads {count}: this machine lets us use {usable} cores")
