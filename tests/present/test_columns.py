"""The table of a comparison in Markdown and CSV: figures worked out by hand."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from tests.present.comparisons import Q4, WIDTH, job, write

from secateur.present.columns import (
    COLUMNS,
    best_for,
    comma_separated,
    is_best,
    markdown,
    measured,
    megabytes,
    plain,
    short,
)
from secateur.present.comparison_folder import read_cells
from secateur.present.summary_rows import Line, lines_of


@pytest.fixture
def lines(tmp_path: Path) -> dict[object, Line]:
    return {line.row: line for line in lines_of(read_cells(write(tmp_path), job()))}


def test_tables(lines: dict[object, Line]) -> None:
    rows = list(csv.DictReader(io.StringIO(comma_separated(list(lines.values())))))
    width = next(row for row in rows if row["method"] == "width")
    assert float(width["size reduction"]) == pytest.approx(0.2)
    assert (float(width["size, MB"]), width["target"]) == (160.0, "ratio=0.2")
    assert next(row for row in rows if row["method"] == "depth:sub-blocks")["speed gain"] == ""
    text = markdown(list(lines.values())).splitlines()
    assert len(text) == 2 + len(lines)
    assert len({line.count("|") for line in text}) == 1
    assert "| 20.0 % | x 1.20 | 85.0 % | 28.00 | 160 |" in text[6]


def test_figures_as_people_read_them() -> None:
    assert [megabytes(value) for value in (1.25e6, 9.99e6, 12.3e6, 4.5e9)] == ["1.2", "10.0", "12", "4,500"]
    assert short("width:criterion=flap:units=ffn+kv:uniform") == "width flap ffn+kv uniform"
    assert plain(["a", "b"], [["1|2", "3"]], ["---", "---:"]) == "| a | b |\n| --- | ---: |\n| 1\\|2 | 3 |\n"


def test_only_measured_columns_are_shown(lines: dict[object, Line]) -> None:
    names = [column.name for column in measured(list(lines.values()))]
    assert "perplexity" in names
    assert "native, tokens/s" not in names
    assert names == [column.name for column in COLUMNS if column.name in names], "in their order"


def test_the_best_are_marked_in_their_own_columns(lines: dict[object, Line]) -> None:
    marked = {column.name for column in COLUMNS if is_best(column, lines[WIDTH])}
    assert marked == {"speed gain", "size, MB"}
    assert not any(is_best(column, lines[Q4]) for column in COLUMNS)
    assert best_for(lines[Q4]) == lines[Q4].good_for
