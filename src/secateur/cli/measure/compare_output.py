"""What `secateur compare` shows: rows at work on stderr, and what was found as JSON or as a table."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from secateur.cli.shared import printing

if TYPE_CHECKING:
    from secateur.pipeline.compare.compare import Compared
    from secateur.pipeline.compare.watcher import Watcher

SHORT = {
    "method": "method",
    "target": "target",
    "size reduction": "smaller",
    "speed gain": "faster",
    "native size, MB": "nat. MB",
    "native size reduction": "nat. smaller",
    "native speed gain": "nat. faster",
    "accuracy kept": "kept",
    "perplexity": "perpl.",
}
SHORT |= {
    "task accuracy": "tasks",
    "stereotyped pairs": "stereot.",
    "size, MB": "MB",
    "decode, tokens/s": "tok/s",
    "CPU, s": "CPU s",
}
"""Columns that fit on a terminal, and their headings there."""


def print_comparison(found: Compared, seconds: float, *, as_json: bool) -> None:
    """Print the rows, as one JSON object or as a table with notes on stderr. seconds: that the run took."""
    if as_json:
        rows = [
            {
                "row": cell.row.name,
                "kind": cell.row.kind,
                "failed": cell.failed,
                "notes": cell.notes,
                "records": _records(cell),
            }
            for cell in found.cells
        ]
        body = {
            "folder": str(found.folder),
            "rows": rows,
            "left_out": found.left_out,
            "seconds": round(seconds, 1),
            "peak_memory": found.peak,
        }
        print(json.dumps(body, indent=2, sort_keys=True))
        return
    _table(found)
    for line in (
        *found.left_out,
        *(
            f"{cell.row.name}: {note}"
            for cell in found.cells
            for note in (*cell.notes, *([cell.failed] if cell.failed else []))
        ),
    ):
        print(f"note: {line}", file=sys.stderr)
    most = f", at most {printing.size(found.peak)} of memory" if found.peak else ""
    print(f"{seconds:.0f} s{most}; `secateur report {found.folder}` makes a page of it", file=sys.stderr)


def _table(found: Compared) -> None:
    """Print the rows; the best value at each target is green."""
    from rich.text import Text

    from secateur.present.columns import is_best, measured
    from secateur.present.summary_rows import lines_of

    lines = lines_of(found.cells)
    targets = {line.row.target for line in lines if line.row.target}
    columns = [
        column
        for column in measured(lines)
        if column.name in SHORT and (column.name != "target" or len(targets) > 1)
    ]
    rows = [
        [Text(column.text(line), style="bold green" if is_best(column, line) else "") for column in columns]
        for line in lines
    ]
    where = f" at {targets.pop()}" if len(targets) == 1 else ""
    printing.table(
        rows,
        header=[SHORT[column.name] for column in columns],
        title=f"{found.job.name}{where}: {len(lines)} rows",
    )


def _records(cell: Any) -> list[dict[str, Any]]:
    return [record.as_dict() for record in cell.records.values()]


@contextmanager
def watching(*, quiet: bool) -> Iterator[Watcher]:
    """Yield a display of the rows at work.

    Bars on a terminal, a line for each that ends elsewhere, nothing when quiet.
    """
    from secateur.pipeline.compare.watcher import Unwatched

    if quiet:
        yield Unwatched()
        return
    if not sys.stderr.isatty():
        yield _RowLines()
        return
    from secateur.cli.shared.progress_bars import board

    with board() as shown:
        yield shown


class _RowLines:
    """A Watcher that writes a line for each row that ends."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._done = self._total = 0

    def begin(self, total: int) -> None:
        self._total = total

    def started(self, name: str, what: str) -> None:
        pass

    def moved(self, name: str, task: str, done: int, total: int) -> None:
        pass

    def ended(self, name: str, line: str) -> None:
        self._done += 1
        spent = time.perf_counter() - self._started
        left = spent / self._done * (self._total - self._done)
        print(
            f"[{self._done}/{self._total}] {spent:.0f} s, about {left:.0f} s left:"
            f" {name}{f' failed: {line}' if line else ''}",
            file=sys.stderr,
            flush=True,
        )

    def note(self, line: str) -> None:
        print(f"note: {line}", file=sys.stderr, flush=True)
