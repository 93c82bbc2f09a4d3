"""Count tokens: their total, and the recent rate."""

from __future__ import annotations

import threading
import time
from collections import deque

_WINDOW = 2.0
"""Seconds over which the rate is measured."""


class Rate:
    """A counter that any thread may use.

    total: sum of all counts.
    """

    def __init__(self) -> None:
        self.total = 0
        self._recent: deque[tuple[float, int]] = deque()
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Add `count` now."""
        now = time.monotonic()
        with self._lock:
            self.total += count
            self._recent.append((now, count))
            while now - self._recent[0][0] > _WINDOW:
                self._recent.popleft()

    def now(self) -> float:
        """Return the recent rate per second."""
        start = time.monotonic() - _WINDOW
        with self._lock:
            return sum(count for when, count in self._recent if when > start) / _WINDOW
