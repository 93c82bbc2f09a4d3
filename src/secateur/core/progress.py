"""Protocol for showing the progress of long work."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the progress of long work; shows it as a bar, as lines, or not at all."""

    def start(self, task: str, total: int, done: int = 0) -> None:
        """Begin `task` of `total` steps, `done` of them finished already."""

    def step(self, detail: str = "") -> None:
        """One more step is finished."""

    def note(self, line: str) -> None:
        """Show one line that stays."""


class Silent:
    """A `Progress` that shows nothing."""

    def start(self, task: str, total: int, done: int = 0) -> None:
        """Ignore."""

    def step(self, detail: str = "") -> None:
        """Ignore."""

    def note(self, line: str) -> None:
        """Ignore."""
