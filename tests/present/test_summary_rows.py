"""What a comparison comes to: figures worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.present.comparisons import DEPTH, DIGEST, MAGNITUDE, Q4, WANDA, WIDTH, job, record, write

from secateur.present.charts import charts
from secateur.present.columns import best_for, markdown
from secateur.present.comparison_folder import ComparisonRow, RowPart, read_cells, write_json, write_part
from secateur.present.kind_table import by_kind, header
from secateur.present.summary_rows import Line, lines_of


@pytest.fixture
def lines(tmp_path: Path) -> dict[object, Line]:
    return {line.row: line for line in lines_of(read_cells(write(tmp_path), job()))}


def test_figures(lines: dict[object, Line]) -> None:
    assert lines[WIDTH].size_reduction == pytest.approx(0.2)
    assert lines[WANDA].size_reduction == 0
    assert lines[Q4].size_reduction == pytest.approx(0.6), "a quantized file against the 16-bit file"
    assert (lines[WIDTH].speed_gain, lines[WIDTH].speed, lines[WIDTH].runtime) == (1.2, 60.0, "llamacpp")
    assert lines[WANDA].accuracy_kept == pytest.approx(0.95)
    assert lines[DEPTH].speed_gain is None


def test_the_best_of_a_target(lines: dict[object, Line]) -> None:
    assert lines[WANDA].best == ("lowest perplexity", "most accuracy kept")
    assert lines[WIDTH].best == ("fastest", "smallest")
    assert lines[MAGNITUDE].best == lines[Q4].best == ()
    assert "here fastest, smallest" in best_for(lines[WIDTH])


def test_tasks_replace_next_tokens(tmp_path: Path) -> None:
    write(tmp_path)
    names = ("comprehension/a/acc", "comprehension/b/acc", "word prediction/c/acc")
    for row, scores in ((job().rows[0], (0.5, 0.7, 0.9)), (WIDTH, (0.45, 0.51, 0.1))):
        part = RowPart(
            source=DIGEST,
            records=tuple(record(name, value) for name, value in zip(names, scores, strict=True)),
        )
        write_part(tmp_path, row, "tasks", part)
    lines = {line.row: line for line in lines_of(read_cells(tmp_path, job()))}
    assert lines[WIDTH].accuracy_kept == pytest.approx(0.8), "word prediction is another matter"
    assert lines[WIDTH].task_accuracy == pytest.approx(0.48)
    assert lines[WANDA].accuracy_kept == pytest.approx(0.95)


def test_the_native_backend_has_columns_of_its_own(tmp_path: Path) -> None:
    """Its gains are by another whole model than llama.cpp's."""
    write(tmp_path)
    few = ComparisonRow("native int8", "", "quantized")
    figures = {
        job().rows[0]: {"native_bytes": 100e6, "native_decode": 40.0, "native_bandwidth": 0.9},
        WANDA: {
            "native_bytes": 70e6,
            "native_decode": 60.0,
            "native_decode_ratio": 1.5,
            "native_bandwidth": 0.8,
        },
        few: {"native_bytes": 52e6, "native_decode": 70.0, "native_decode_ratio": 1.75},
    }
    for row, values in figures.items():
        write_part(
            tmp_path,
            row,
            "tasks" if row != few else "speed",
            RowPart(source=DIGEST, records=tuple(record(*value) for value in values.items())),
        )
    with_few = replace(job(), rows=(*job().rows, few))
    lines = {line.row: line for line in lines_of(read_cells(tmp_path, with_few))}
    assert (lines[WANDA].speed_gain, lines[WANDA].native_gain) == (1.0, 1.5)
    assert lines[WANDA].native_reduction == pytest.approx(0.3)
    assert "native backend skips zeros" in lines[WANDA].hardware
    assert "skips zeros;" in lines[MAGNITUDE].hardware, "which was not run there"
    assert (lines[few].speed_gain, lines[few].native_gain, lines[few].size) == (None, 1.75, 52e6)
    assert lines[few].size_reduction == pytest.approx(0.48)
    assert header(list(lines.values()))[3] == "in our kernels"
    rows = {row[0]: row for row in by_kind(list(lines.values()))}
    assert rows["unstructured"][2:5] == ["x 1.00", "30 % smaller, x 1.50", "95 %"]
    assert rows["structured, width"][3] == "-"
    assert {len(row) for row in rows.values()} == {7}
    assert "native speed gain" in markdown(list(lines.values()))
    drawn = charts([replace(line, perplexity=line.perplexity or 20.1) for line in lines.values()], [])
    held = {point["name"]: point["x"] for point in drawn["quality-held"]["layer"][1]["data"]["values"]}
    assert held == {"dense": 100.0, "q4_0": 80.4, "wanda at ratio=0.2": 70.0, "native int8": 52.0}
    assert len(drawn["quality-native"]["layer"][1]["data"]["values"]) == 3


def test_a_failed_row_says_why(tmp_path: Path) -> None:
    write(tmp_path)
    write_json(tmp_path / "cells" / WANDA.id / "failed.json", {"failed": "out of reach"})
    line = next(line for line in lines_of(read_cells(tmp_path, job())) if line.row == WANDA)
    assert best_for(line) == "failed: out of reach"
