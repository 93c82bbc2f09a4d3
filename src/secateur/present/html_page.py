"""One HTML page of a comparison, whole in itself: it loads nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from secateur.present.charts import Spec, charts, script
from secateur.present.columns import Column, is_best, measured, megabytes, short
from secateur.present.comparison_folder import Cell, ComparisonJob
from secateur.present.kind_table import by_kind, header
from secateur.present.summary_rows import BESTS, Line, lines_of
from secateur.present.task_tables import tables

_TITLES = {
    "quality-size": ("Quality against bytes", "The dashed line joins the rows that no other beats in both."),
    "quality-speed": (
        "Quality against speed",
        "Decode speed, in turns with the whole model on the machine that ran the comparison.",
    ),
    "quality-held": (
        "Quality at equal bytes",
        (
            "Weights as they run: pruned ones in the native backend, without their zeros where that is"
            " faster; the whole model there and in llama.cpp's files."
        ),
    ),
    "quality-native": (
        "Quality against speed in the native backend",
        "In turns with the whole model in bfloat16 there.",
    ),
    "removed": (
        "What each plan removed, block by block",
        "The stronger the colour, the larger the share of a block's attention or FFN that is gone or zero.",
    ),
}
_PARETO = ("quality-size", "quality-speed")
_BARS = (
    "size reduction",
    "speed gain",
    "accuracy kept",
    "task accuracy",
    "size, MB",
    "decode, tokens/s",
    "memory, MB",
    "to prune, s",
    "CPU, s",
)
"""Columns whose figures are also drawn, as a share of the largest."""


def page(job: ComparisonJob, cells: Sequence[Cell]) -> str:
    """Return the page."""
    lines = lines_of(cells)
    drawn = charts(lines, cells)
    parts = [
        (
            "<header><h1>Which pruning fits"
            f" {escape(job.name)}?</h1><p>{escape(summary(job, cells))}</p></header>"
        ),
        *_cards(lines),
        *_kinds(lines),
        _section(
            "Every row",
            "Tap a heading to sort. Green: the best of the pruned rows at its target.",
            _table(lines),
        ),
        *_pareto(drawn),
        *(chart_place(name, *_TITLES[name]) for name in drawn if name not in _PARETO),
        *_asked(cells),
        *_notes(cells),
        _protocol(job),
        _provenance(cells),
        (
            f"<footer>Written by Secateur {escape(job.secateur)}. This page holds all it shows and loads"
            " nothing.</footer>"
        ),
    ]
    return whole_page(f"{job.name}: pruning compared", parts, drawn)


def whole_page(title: str, parts: Sequence[str], drawn: Mapping[str, Spec]) -> str:
    """Return an HTML page that loads nothing from elsewhere.

    parts: its body as HTML. drawn: the chart of each place that `chart_place` made.
    """
    own = files("secateur.present")
    style = own.joinpath("page.css").read_text(encoding="utf-8")
    behaviour = own.joinpath("page.js").read_text(encoding="utf-8")
    embedded = json.dumps(drawn).replace("</", "<\\/")
    return "\n".join(
        [
            (
                '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport"'
                ' content="width=device-width, initial-scale=1">'
            ),
            f'<link rel="icon" href="data:,"><title>{escape(title)}</title>',
            f"<style>{style}</style></head><body>",
            *parts,
            f'<script type="application/json" id="charts">{embedded}</script>',
            f'<script type="module">{script()}</script>',
            f'<script type="module">{behaviour}</script></body></html>\n',
        ]
    )


def summary(job: ComparisonJob, cells: Sequence[Cell]) -> str:
    """Return what was compared, in a sentence or two."""
    rows = [cell for cell in cells if cell.row.target and not cell.failed]
    targets = dict.fromkeys(cell.row.target for cell in rows)
    calibration = job.protocols["calibration"]
    said = (
        f"{len(rows)} ways to prune {job.name} ({job.parameters / 1e6:.1f}M parameters) to"
        f" {', '.join(targets) or 'no target yet'}, with the whole model "
    )
    said += (
        f"and its quantized files beside them. One calibration ({_base(calibration['text'])},"
        f" {calibration['samples']} windows of {calibration['window']} "
    )
    said += (
        f"tokens) for all; perplexity on {job.protocols['quality']['origin']},"
        f" {job.protocols['quality']['count']} windows of "
    )
    return said + f"{job.protocols['quality']['window']} tokens. No training."


def _section(title: str, words: str, body: str) -> str:
    said = f"<p>{escape(words)}</p>" if words else ""
    return f"<section><h2>{escape(title)}</h2>{said}{body}</section>"


def _cards(lines: Sequence[Line]) -> Iterator[str]:
    one = len({line.row.target for line in lines if line.row.target}) == 1
    found = []
    for column, words, _ in BESTS:
        line = next((line for line in lines if words in line.best), None)
        if line:
            name = short(line.row.method) if one else f"{short(line.row.method)} at {line.row.target}"
            found.append(
                f"<li>{escape(words)}<b>{escape(_said(line, column))}</b><span>{escape(name)}</span></li>"
            )
    if found:
        yield f'<ul class="cards">{"".join(found)}</ul>'


def _said(line: Line, column: str) -> str:
    value = getattr(line, column)
    words = {
        "perplexity": f"{value:.2f}",
        "accuracy_kept": f"{value:.1%}",
        "speed_gain": f"x {value:.2f}",
        "size": f"{megabytes(value)} MB",
    }
    return words.get(column, f"{value:.0f} CPU s")


def _kinds(lines: Sequence[Line]) -> Iterator[str]:
    rows = by_kind(lines)
    if rows:
        yield _section(
            "The kinds of pruning",
            "The range of what the rows below measured.",
            plain_table(header(lines), rows, "kinds"),
        )


def _table(lines: Sequence[Line]) -> str:
    columns = measured(lines)
    most = {
        column.name: max(
            (value for line in lines if isinstance(value := column.value(line), float)), default=0.0
        )
        for column in columns
    }
    heads = "".join(
        f'<th{_numeric(column)} scope="col"><button type="button">{escape(column.name)}</button></th>'
        for column in columns
    )
    rows = "".join(
        f'<tr class="{line.row.kind}">'
        f"{''.join(_cell(column, line, most[column.name]) for column in columns)}</tr>"
        for line in lines
    )
    return (
        '<div class="scroll"><table class="sortable"'
        f' id="rows"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _cell(column: Column, line: Line, most: float) -> str:
    value = column.value(line)
    text = escape(column.text(line))
    kept = escape("" if value is None else str(value))
    if column.name == "method":
        return f'<th scope="row" data-value="{kept}">{text.replace(":", ":<wbr>")}</th>'
    kind = (
        ("n best" if is_best(column, line) else "n")
        if column.number
        else "w"
        if column.name in ("hardware suitability", "best for")
        else "t"
    )
    bar = (
        f' style="--share: {100 * value / most:.1f}%"'
        if column.name in _BARS and isinstance(value, float) and most > 0
        else ""
    )
    return f'<td class="{kind}" data-value="{kept}"{bar}>{text}</td>'


def _numeric(column: Column) -> str:
    return ' class="n"' if column.number else ""


def plain_table(header: Sequence[str], rows: Sequence[Sequence[str]], name: str = "") -> str:
    """Return a table that is not sorted; name: how the page knows it."""
    heads = "".join(f'<th scope="col">{escape(one)}</th>' for one in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows)
    called = f' id="{name}"' if name else ""
    return (
        "<div"
        f' class="scroll"><table{called}><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def chart_place(name: str, title: str, words: str) -> str:
    """Return where the chart of this name goes, under its heading."""
    return _section(title, words, f'<div class="chart" id="{name}"></div>')


def _pareto(drawn: Mapping[str, Any]) -> Iterator[str]:
    """Yield the charts of quality, side by side where there is room."""
    found = [chart_place(name, *_TITLES[name]) for name in drawn if name in _PARETO]
    if found:
        yield f'<div class="pair">{"".join(found)}</div>'


def _asked(cells: Sequence[Cell]) -> Iterator[str]:
    """Yield the scores of tasks and of the bias audit, where there are any."""
    for table in tables(cells):
        yield _section(table.title, table.words, plain_table(table.header, table.rows))


def _notes(cells: Sequence[Cell]) -> Iterator[str]:
    said = [
        f"{cell.row.name}: {line}"
        for cell in cells
        for line in (*cell.notes, *([f"failed: {cell.failed}"] if cell.failed else []))
    ]
    unfinished = [cell.row.name for cell in cells if not cell.failed and "quality" not in cell.parts]
    said += (
        [f"not finished: {', '.join(unfinished)}; the same `secateur compare` goes on"] if unfinished else []
    )
    if said:
        yield _section("Notes", "", "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in said) + "</ul>")


def _protocol(job: ComparisonJob) -> str:
    rows = [
        (name, ", ".join(f"{key} {_shown(value)}" for key, value in values.items()))
        for name, values in job.protocols.items()
        if values
    ]
    rows.append(("model", f"{job.name}, {job.parameters:,} parameters, digest {job.digest}"))
    terms = "".join(f"<dt>{escape(name)}</dt><dd>{escape(words)}</dd>" for name, words in rows)
    return _section("Protocol", "The same for every row.", f"<dl>{terms}</dl>")


def _provenance(cells: Sequence[Cell]) -> str:
    """Return every number with how it was measured, on what, by which software."""
    header = ("row", "number", "value", "unit", "protocol", "plan", "seed", "software", "machine")
    rows = [
        [
            cell.row.name,
            record.name,
            f"{record.value:.6g}",
            record.unit,
            record.protocol,
            record.plan[:19],
            str(record.seed),
            _versions(record.software),
            record.machine,
        ]
        for cell in cells
        for record in cell.records.values()
    ]
    return _section(
        "Provenance",
        "",
        f"<details><summary>All {len(rows)} numbers, and where each comes"
        f" from</summary>{plain_table(header, rows)}</details>",
    )


def _versions(software: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {number}" for name, number in software.items())


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else _base(str(value))


def _base(text: str) -> str:
    """Return the name of a file without its folder, which is private."""
    return text if text.startswith("hf:") else text.replace("\\", "/").rpartition("/")[2]
