"""The columns of a comparison's table, and how each figure is written for people."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from secateur.present.summary_rows import BESTS, Line

NOTHING = "-"


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    value: the sort key (text, a number, or None where nothing was measured). text: what is shown. number:
    whether it is right-aligned.
    """

    name: str
    value: Callable[[Line], float | str | None]
    text: Callable[[Line], str]
    number: bool = True


def _number(name: str, field: str, write: Callable[[float], str]) -> Column:
    def value(line: Line) -> float | None:
        found: float | None = getattr(line, field)
        return found

    def text(line: Line) -> str:
        found = value(line)
        return NOTHING if found is None else write(found)

    return Column(name, value, text)


def _words(name: str, say: Callable[[Line], str]) -> Column:
    return Column(name, say, say, number=False)


def best_for(line: Line) -> str:
    """Return what a row is good for, and in what it was the best measured."""
    if line.failed:
        return f"failed: {line.failed}"
    return line.good_for + (f"; here {', '.join(line.best)}" if line.best else "")


def short(method: str) -> str:
    """Return a method without the names of its options: `width flap` for `width:criterion=flap`."""
    name, *options = method.split(":")
    return " ".join([name, *(option.rpartition("=")[2] for option in options)])


def megabytes(value: float) -> str:
    """Write bytes in MB of 10^6 bytes."""
    return f"{value / 1e6:,.1f}" if value < 1e7 else f"{value / 1e6:,.0f}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _gain(value: float) -> str:
    return f"x {value:.2f}"


COLUMNS: tuple[Column, ...] = (
    _words("method", lambda line: line.row.method),
    _words("target", lambda line: line.row.target or NOTHING),
    _words("kind", lambda line: line.row.kind),
    _number("size reduction", "size_reduction", _percent),
    _number("speed gain", "speed_gain", _gain),
    _number("accuracy kept", "accuracy_kept", _percent),
    _number("task accuracy", "task_accuracy", _percent),
    _number("perplexity", "perplexity", lambda value: f"{value:.2f}" if value < 1e4 else f"{value:.3g}"),
    _number("size, MB", "size", megabytes),
    _number("weights not zero, M", "nonzero", lambda value: f"{value / 1e6:.4g}"),
    _number("decode, tokens/s", "speed", lambda value: f"{value:.4g}"),
    _number("stereotyped pairs", "stereotyped", _percent),
    _number("prompt gain", "prompt_gain", _gain),
    _number("memory, MB", "memory", megabytes),
    _number("to prune, s", "prune_seconds", lambda value: f"{value:.0f}"),
    _number("CPU, s", "prune_cpu", lambda value: f"{value:.0f}"),
    _number("native size, MB", "native_size", megabytes),
    _number("native size reduction", "native_reduction", _percent),
    _number("native, tokens/s", "native_speed", lambda value: f"{value:.4g}"),
    _number("native speed gain", "native_gain", _gain),
    _number("of memory's bandwidth", "bandwidth", _percent),
    _words("hardware suitability", lambda line: line.hardware),
    _words("best for", best_for),
)


_MARKED = {
    "perplexity": "perplexity",
    "accuracy_kept": "accuracy kept",
    "speed_gain": "speed gain",
    "size": "size, MB",
    "prune_cpu": "CPU, s",
}


def is_best(column: Column, line: Line) -> bool:
    """Whether a row is the best of the pruned ones at its target in this column."""
    return any(words in line.best and _MARKED[name] == column.name for name, words, _ in BESTS)


def measured(lines: Sequence[Line]) -> list[Column]:
    """Return the columns in which any row has a figure."""
    return [
        column
        for column in COLUMNS
        if not column.number or any(column.value(line) is not None for line in lines)
    ]


def markdown(lines: Sequence[Line]) -> str:
    """Return the table in Markdown."""
    columns = measured(lines)
    rows = [[column.text(line) for column in columns] for line in lines]
    return plain(
        [column.name for column in columns], rows, ["---:" if column.number else "---" for column in columns]
    )


def plain(header: Sequence[str], rows: Sequence[Sequence[str]], rules: Sequence[str] = ()) -> str:
    """Return any table in Markdown; rules: how each column is aligned."""
    written = [[text.replace("|", "\\|") for text in row] for row in rows]
    return (
        "\n".join("| " + " | ".join(row) + " |" for row in [header, rules or ["---"] * len(header), *written])
        + "\n"
    )


def comma_separated(lines: Sequence[Line]) -> str:
    """Return the table in CSV, figures in full: shares, ratios, bytes and seconds."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = measured(lines)
    writer.writerow([column.name for column in columns])
    names = {"size, MB": 1e6, "native size, MB": 1e6, "memory, MB": 1e6, "weights not zero, M": 1e6}
    for line in lines:
        values = [column.value(line) for column in columns]
        scaled = [
            value / names.get(column.name, 1) if isinstance(value, float) else value
            for column, value in zip(columns, values, strict=True)
        ]
        writer.writerow(["" if value in (None, NOTHING) else value for value in scaled])
    return text.getvalue()
