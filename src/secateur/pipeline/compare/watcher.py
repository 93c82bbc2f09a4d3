"""The seam between a comparison and whoever watches it."""

from __future__ import annotations

from typing import Protocol


class Watcher(Protocol):
    """Told what becomes of every row."""

    def begin(self, total: int) -> None:
        """So many pieces of work are ahead."""

    def started(self, name: str, what: str) -> None:
        """A row is worked on: `make` or `time`."""

    def moved(self, name: str, task: str, done: int, total: int) -> None:
        """A row has come so far in a task."""

    def ended(self, name: str, line: str) -> None:
        """A piece of work is finished, or failed, as `line` says."""

    def note(self, line: str) -> None:
        """Say one line that stays."""


class Unwatched:
    """A Watcher that shows nothing."""

    def begin(self, total: int) -> None:
        """Ignore."""

    def started(self, name: str, what: str) -> None:
        """Ignore."""

    def moved(self, name: str, task: str, done: int, total: int) -> None:
        """Ignore."""

    def ended(self, name: str, line: str) -> None:
        """Ignore."""

    def note(self, line: str) -> None:
        """Ignore."""
