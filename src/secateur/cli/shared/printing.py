"""How verbs print: progress on stderr, results as a table or as JSON on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID
    from rich.text import Text

    from secateur.core.progress import Progress


class _RichProgress:
    """A bar with the time left on stderr."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._task: TaskID | None = None

    def start(self, task: str, total: int, done: int = 0) -> None:
        """Replace the current bar."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(task, total=total, completed=done, detail="")

    def step(self, detail: str = "") -> None:
        """Advance the bar by one."""
        if self._task is not None:
            self._bar.update(self._task, advance=1, detail=detail)

    def note(self, line: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(line, highlight=False, markup=False)


@contextmanager
def progress(*, quiet: bool) -> Iterator[Progress]:
    """Yield a progress display on stderr: a bar on a terminal, nothing when quiet or redirected."""
    from secateur.core.progress import Silent

    if quiet or not sys.stderr.isatty():
        yield Silent()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, TextColumn("{task.fields[detail]}"), console=Console(stderr=True), transient=True
    ) as bar:
        yield _RichProgress(bar)


def result(body: Mapping[str, Any], *, as_json: bool, title: str = "") -> None:
    """Print a flat mapping as two columns, or as one JSON object."""
    if as_json:
        print(json.dumps(body, indent=2, sort_keys=True, default=str))
        return
    table([[name.replace("_", " "), _text(value)] for name, value in body.items()], title=title)


def table(rows: Sequence[Sequence[str | Text]], *, title: str = "", header: Sequence[str] = ()) -> None:
    """Print rows of text; columns after the first are right-aligned under a header."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(
        title=title or None, show_header=bool(header), title_justify="left", box=None, pad_edge=False
    )
    for index in range(max((len(row) for row in rows), default=len(header))):
        shown.add_column(
            header[index] if header else "", justify="right" if header and index else "left", overflow="fold"
        )
    for row in rows:
        shown.add_row(*row)
    Console(highlight=False, markup=False).print(shown)


def size(count: float) -> str:
    """Return a number of bytes as text, such as `1.5 MB`."""
    for unit in ("B", "kB", "MB"):
        if abs(count) < 1000:
            return f"{count:.4g} {unit}"
        count /= 1000
    return f"{count:.4g} GB"


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(map(_text, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
