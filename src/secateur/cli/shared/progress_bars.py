"""Progress bars for several rows at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_STAGES = 5
"""Tasks that a row usually has: rank, prune, export, check, evaluate."""


class Board:
    """A Watcher that shows one bar for all rows, with the time left, and one for each row in progress."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._all: TaskID | None = None
        self._own: dict[str, TaskID] = {}
        self._stages: dict[str, list[str]] = {}
        self._shares: dict[str, float] = {}
        self._finished = 0

    def begin(self, total: int) -> None:
        """Show the bar of all rows."""
        self._all = self._bars.add_task("compare", total=total, detail="")

    def started(self, name: str, what: str) -> None:
        """Show a bar for a row."""
        self._own[name] = self._bars.add_task(
            f"  {name}", total=None, detail="speed" if what == "time" else ""
        )
        self._stages[name] = []
        self._shares[name] = 0.0

    def moved(self, name: str, task: str, done: int, total: int) -> None:
        """Advance the bar of a row, and the bar of all rows by the share of this row that is done."""
        stages = self._stages.setdefault(name, [])
        if task not in stages:
            stages.append(task)
        share = (len(stages) - 1 + done / max(total, 1)) / max(_STAGES, len(stages))
        self._shares[name] = max(self._shares.get(name, 0.0), min(share, 0.99))
        if name in self._own:
            self._bars.update(self._own[name], total=total, completed=done, detail=task)
        self._update()

    def ended(self, name: str, line: str) -> None:
        """Remove the bar of a row, and print how it ended."""
        if name in self._own:
            self._bars.remove_task(self._own.pop(name))
        self._shares.pop(name, None)
        self._finished += 1
        self._bars.console.print(
            f"{'✗' if line else '✓'} {name}{f': {line}' if line else ''}", highlight=False, markup=False
        )
        self._update()

    def note(self, line: str) -> None:
        """Print a line above the bars."""
        self._bars.console.print(line, highlight=False, markup=False)

    def _update(self) -> None:
        if self._all is not None:
            self._bars.update(self._all, completed=self._finished + sum(self._shares.values()))


@contextmanager
def board() -> Iterator[Board]:
    """Yield a board on stderr."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield Board(bars)
