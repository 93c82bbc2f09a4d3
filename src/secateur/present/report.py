"""Write the report of a comparison from its folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from secateur.present.charts import charts, require_charts, write_png
from secateur.present.columns import comma_separated, markdown, plain
from secateur.present.comparison_folder import Cell, read_cells, read_job
from secateur.present.html_page import page, summary
from secateur.present.kind_table import by_kind, header
from secateur.present.summary_rows import Line, lines_of
from secateur.present.task_tables import tables
from secateur_runtime.errors import UsageError, nearest
from secateur_runtime.files import write_text

FORMATS = ("html", "md", "csv", "png")


@dataclass(frozen=True, slots=True)
class Reported:
    """What was written, and of what."""

    files: tuple[Path, ...]
    cells: tuple[Cell, ...]
    lines: tuple[Line, ...]


def report(folder: str | Path, out: str | Path | None = None, formats: Sequence[str] = FORMATS) -> Reported:
    """Write the report of a comparison: `report.html`, `.md`, `.csv`, and a PNG of each chart.

    folder: of the comparison. out: folder of the report, None for the same. formats: of `FORMATS`.
    Raises RecordError for a folder that is none, or damaged, UsageError for an unknown format,
    MissingExtraError without Vega, which `html` and `png` need.
    """
    folder = Path(folder)
    place = Path(out) if out else folder
    for name in formats:
        if name not in FORMATS:
            raise UsageError(f"unknown format {name!r}{nearest(name, FORMATS)}; known: {', '.join(FORMATS)}")
    job = read_job(folder)
    cells = read_cells(folder, job)
    if {"html", "png"} & set(formats):
        require_charts()
    lines = lines_of(cells)
    makers: dict[str, Callable[[], str]] = {
        "html": lambda: page(job, cells),
        "md": lambda: (
            f"# {job.name}: pruning compared\n\n{summary(job, cells)}\n\n{_kinds(lines)}## Every"
            f" row\n\n{markdown(lines)}{_asked(cells)}"
        ),
        "csv": lambda: comma_separated(lines),
    }
    written = [place / f"report.{name}" for name in makers if name in formats]
    for path in written:
        write_text(path, makers[path.suffix[1:]](), parents=True)
    if "png" in formats:
        for name, spec in charts(lines, cells).items():
            write_png(place / f"{name}.png", spec)
            written.append(place / f"{name}.png")
    return Reported(tuple(written), tuple(cells), tuple(lines))


def _kinds(lines: Sequence[Line]) -> str:
    rows = by_kind(lines)
    return f"## The kinds of pruning\n\n{plain(header(lines), rows)}\n" if rows else ""


def _asked(cells: Sequence[Cell]) -> str:
    return "".join(
        f"\n## {table.title}\n\n{table.words}\n\n{plain(table.header, table.rows)}" for table in tables(cells)
    )
