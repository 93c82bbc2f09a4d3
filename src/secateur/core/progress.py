"""Protocol for showing the progress of long work, and its form as lines from one process to another."""

from __future__ import annotations

import json
from typing import Any, Protocol


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


def tell(**body: Any) -> None:
    """Write one line, a JSON object, for the process that watches."""
    print(json.dumps(body), flush=True)


class Told:
    """A Progress that writes its events to stdout."""

    def start(self, task: str, total: int, done: int = 0) -> None:
        """Say that a task begins."""
        tell(task=task, total=total, done=done)

    def step(self, detail: str = "") -> None:
        """Say that one more step is finished."""
        tell(step=detail)

    def note(self, line: str) -> None:
        """Say a line."""
        tell(note=line)


def repeat(line: bytes, progress: Progress) -> dict[str, Any]:
    """Repeat the event of a line to `progress`; return what the line holds, nothing if it is none of ours."""
    try:
        body = json.loads(line)
    except ValueError:
        # Libraries print too.
        return {}
    if not isinstance(body, dict):
        return {}
    if "task" in body:
        progress.start(str(body["task"]), int(body["total"]), int(body["done"]))
    elif "step" in body:
        progress.step(str(body["step"]))
    elif "note" in body:
        progress.note(str(body["note"]))
    return body
