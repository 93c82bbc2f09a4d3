"""The interface between a comparison and what shows its progress."""

from __future__ import annotations

from typing import Protocol


class Watcher(Protocol):
    """Receives the events of a comparison."""

    def begin(self, total: int) -> None:
        """`total` pieces of work are ahead."""

    def started(self, name: str, what: str) -> None:
        """Work on a row begins; what: `make` or `time`."""

    def moved(self, name: str, task: str, done: int, total: int) -> None:
        """A task of a row has done `done` of its `total` steps."""

    def ended(self, name: str, line: str) -> None:
        """A piece of work is finished; line: why it failed, empty if it did not."""

    def note(self, line: str) -> None:
        """Show one line that stays."""


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
