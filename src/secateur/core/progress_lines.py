"""Progress from one process to another: one JSON object a line."""

from __future__ import annotations

import json
from typing import Any

from secateur.core.progress import Progress


def tell(**body: Any) -> None:
    """Write one line for the process that watches."""
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
