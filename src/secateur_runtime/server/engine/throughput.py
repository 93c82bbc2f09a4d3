"""How many tokens there were, and how many a second lately."""

from __future__ import annotations

import threading
import time
from collections import deque

_WINDOW = 2.0
"""Seconds that count as lately."""


class Rate:
    """Counts, from any thread."""

    def __init__(self) -> None:
        self.total = 0
        self._recent: deque[tuple[float, int]] = deque()
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Count."""
        now = time.monotonic()
        with self._lock:
            self.total += count
            self._recent.append((now, count))
            while now - self._recent[0][0] > _WINDOW:
                self._recent.popleft()

    def now(self) -> float:
        """Return how many there are a second."""
        start = time.monotonic() - _WINDOW
        with self._lock:
            return sum(count for when, count in self._recent if when > start) / _WINDOW
