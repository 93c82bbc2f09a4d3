"""Charts are of what was measured, and can be drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.present.comparisons import DEPTH, job, write

from secateur.present.charts import charts, front, png, require_charts, write_png
from secateur.present.comparison_folder import read_cells
from secateur.present.summary_rows import lines_of
from secateur_runtime.errors import MissingExtraError, OutputError


def test_png(tmp_path: Path) -> None:
    pytest.importorskip("vl_convert", reason="pip install 'secateur[report]'")
    cells = read_cells(write(tmp_path), job())
    for name, spec in charts(lines_of(cells), cells).items():
        write_png(tmp_path / f"{name}.png", spec)
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert int.from_bytes(png(spec)[16:20], "big") == 2 * 720


@pytest.mark.parametrize(
    ("smaller", "expected"), [(True, [(1, 9), (2, 5), (4, 4)]), (False, [(4, 4), (5, 5), (6, 7)])]
)
def test_front(smaller: bool, expected: list[tuple[float, float]]) -> None:
    points: list[tuple[float, float]] = [(2, 5), (1, 9), (4, 4), (5, 5), (3, 6), (2, 6), (6, 7)]
    assert front(points, smaller=smaller) == expected


def test_charts_are_of_what_was_measured(tmp_path: Path) -> None:
    cells = read_cells(write(tmp_path), job())
    lines = lines_of(cells)
    drawn = charts(lines, cells)
    points = drawn["quality-speed"]["layer"][1]["data"]["values"]
    assert {point["name"] for point in points} == {line.row.name for line in lines} - {DEPTH.name}
    heat = drawn["removed"]["data"]["values"]
    assert len(heat) == 4 * 2 * 2
    assert {(cell["block"], cell["half"]): cell["removed"] for cell in heat if "wanda" in cell["row"]} == {
        (0, "attention"): 0.0,
        (0, "FFN"): 0.5,
        (1, "attention"): 1.0,
        (1, "FFN"): 0.25,
    }
    assert charts([replace(line, perplexity=None) for line in lines], []) == {}


def test_without_vega(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        MissingExtraError, match=r"pip install 'secateur\[report\]', or ask for --formats md,csv"
    ):
        require_charts()


def test_a_chart_that_cannot_be_written(tmp_path: Path) -> None:
    pytest.importorskip("vl_convert", reason="pip install 'secateur[report]'")
    cells = read_cells(write(tmp_path), job())
    spec = charts(lines_of(cells), cells)["removed"]
    with pytest.raises(OutputError, match=r"^cannot write .*nowhere"):
        write_png(tmp_path / "nowhere" / "a.png", spec)
