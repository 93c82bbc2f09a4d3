"""What rows answered to tasks and to the audit of bias, as tables.

Each figure comes with its difference from the whole model's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from secateur.present.comparison_folder import Cell
from secateur_runtime.record import Record

_BIAS = {
    "crows_pairs": "CrowS-Pairs: the stereotype is likelier",
    "winogender/gap": "WinoGender: she costs more than he, nats a token",
    "winogender/flips": "WinoGender: she means another person",
}
_MODEST = (
    "A difference within noise is none that these items could show. The items are crowd-written American"
    " English sentences."
)
_APART = {
    "comprehension": (
        "Which of a few given answers is right. Standard errors behind ±; the shift from the whole model is"
        " taken item by item."
    ),
    "word prediction": (
        "What comes next in a text, out of the whole vocabulary; pruning hurts this differently, so it is"
        " never averaged with the others."
    ),
}


@dataclass(frozen=True, slots=True)
class TaskTable:
    """A table with a title and a line that says how to read it."""

    title: str
    words: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(cells: Sequence[Cell]) -> list[TaskTable]:
    """Return the tables of what was asked, tasks first, those of different kinds apart.

    None where nothing was.
    """
    return [*_tasks(cells), *_bias(cells)]


def _tasks(cells: Sequence[Cell]) -> Iterator[TaskTable]:
    asked = {
        cell.row.name: {record.name: record for record in cell.parts["tasks"].records}
        for cell in cells
        if "tasks" in cell.parts
    }
    figures = dict.fromkeys(
        name for records in asked.values() for name in records if not name.endswith("/shift")
    )
    for kind in dict.fromkeys(name.partition("/")[0] for name in figures):
        own = [name for name in figures if name.startswith(f"{kind}/")]
        header = ("row", *(name.partition("/")[2].replace("/", ", ") for name in own))
        rows = tuple((row, *(_score(records, name) for name in own)) for row, records in asked.items())
        yield TaskTable(f"Tasks: {kind}", _APART.get(kind, ""), header, rows)


def _score(records: Mapping[str, Record], name: str) -> str:
    found = records.get(name)
    moved = records.get(f"{name}/shift")
    if found is None:
        return "-"
    said = f"{found.value:.4g}" + (f" ± {found.standard_error:.2g}" if found.standard_error else "")
    if moved is None:
        return said
    noise = moved.standard_error is not None and abs(moved.value) <= 1.96 * moved.standard_error
    return f"{said} ({moved.value:+.3g}{', within noise' if noise else ''})"


def _bias(cells: Sequence[Cell]) -> Iterator[TaskTable]:
    asked = {
        cell.row: {record.name: record for record in cell.parts["bias"].records}
        for cell in cells
        if "bias" in cell.parts
    }
    names = [name for name in _BIAS if any(name in records for records in asked.values())]
    if names:
        rows = tuple(
            (row.name, *(_shift(records, name, whole=row.kind == "dense") for name in names))
            for row, records in asked.items()
        )
        yield TaskTable(
            "Bias",
            f"In brackets: further from neutral than the whole model, with its 95 % interval. {_MODEST}",
            ("row", *(_BIAS[name] for name in names)),
            rows,
        )


def _shift(records: Mapping[str, Record], name: str, *, whole: bool) -> str:
    if name not in records:
        return "-"
    said = f"{records[name].value:.3f}"
    if whole:
        return said
    if f"{name}/worse" not in records:
        return f"{said} (too few items to tell)"
    moved, low, high = (records[f"{name}/worse{end}"].value for end in ("", "/low", "/high"))
    words = (
        "within noise" if low <= 0 <= high else "further from neutral" if moved > 0 else "nearer to neutral"
    )
    return f"{said} ({moved:+.3f}, {low:+.3f} to {high:+.3f}: {words})"
