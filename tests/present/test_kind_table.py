"""The kinds of pruning: the range of what their rows measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.present.comparisons import DEPTH, WANDA, WIDTH, job, write

from secateur.present.comparison_folder import read_cells
from secateur.present.kind_table import by_kind, header, kind_of
from secateur.present.summary_rows import Line, lines_of


@pytest.fixture
def lines(tmp_path: Path) -> dict[object, Line]:
    return {line.row: line for line in lines_of(read_cells(write(tmp_path), job()))}


def test_kinds(lines: dict[object, Line]) -> None:
    rows = {row[0]: row for row in by_kind(list(lines.values()))}
    assert list(rows) == [
        "magnitude",
        "unstructured",
        "structured, width",
        "structured, depth",
        "runtime-adaptive",
    ]
    assert rows["structured, width"][1:4] == ["20 %", "x 1.20", "85 %"]
    assert rows["structured, depth"][1:4] == ["19 %", "-", "70 %"]
    assert rows["runtime-adaptive"][-1].startswith("not measured")


def test_a_kind_of_each_row(lines: dict[object, Line]) -> None:
    assert kind_of(lines[WANDA]) == "unstructured"
    assert kind_of(lines[DEPTH]) == "structured, depth"
    searched = replace(lines[WIDTH], row=replace(WIDTH, method="auto:samples=8"))
    assert kind_of(searched) == "structured, both"


def test_ranges_and_rows_that_failed(lines: dict[object, Line]) -> None:
    """Two rows of a kind span a range; a failed one counts for nothing, and no rows make no table."""
    other = replace(lines[WIDTH], size_reduction=0.4, speed_gain=None)
    (row, adaptive) = by_kind([lines[WIDTH], other, replace(lines[WANDA], failed="out of reach")])
    assert row[:3] == ["structured, width", "20 % to 40 %", "x 1.20"]
    assert len(row) == len(adaptive) == len(header([other])) == 6
    assert by_kind([replace(lines[WIDTH], failed="out of reach")]) == []
