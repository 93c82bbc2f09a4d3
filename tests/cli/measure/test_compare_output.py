"""What is printed of a comparison, and of its rows while they are worked on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.present.comparisons import DEPTH, ROWS, WANDA, job, write

from secateur.cli.measure.compare_output import print_comparison, watching
from secateur.pipeline.compare.compare import Compared
from secateur.present.comparison_folder import read_cells


@pytest.fixture
def compared(tmp_path: Path) -> Compared:
    cells = tuple(read_cells(write(tmp_path), job()))
    return Compared(tmp_path, job(), cells, left_out=("alps: cannot make 2:4",), peak=3 * 10**9)


def test_json_holds_every_row_and_record(compared: Compared, capsys: pytest.CaptureFixture[str]) -> None:
    print_comparison(compared, 12.345, as_json=True)
    output = capsys.readouterr()
    body = json.loads(output.out)
    assert output.err == ""
    assert [row["row"] for row in body["rows"]] == [row.name for row in ROWS]
    wanda = next(row for row in body["rows"] if row["row"] == WANDA.name)
    assert {record["name"]: record["value"] for record in wanda["records"]}["perplexity"] == 22.0
    assert (body["seconds"], body["peak_memory"]) == (12.3, 3 * 10**9)
    assert body["left_out"] == ["alps: cannot make 2:4"]


def test_a_table_has_the_only_target_in_its_title(
    compared: Compared, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    print_comparison(compared, 12.345, as_json=False)
    output = capsys.readouterr()
    title, header, *rows = output.out.splitlines()
    assert title.rstrip() == "small at ratio=0.2: 6 rows"
    assert "target" not in header
    assert "perpl." in header
    assert [row.split()[0] for row in rows] == [row.method for row in ROWS]
    assert "note: alps: cannot make 2:4\n" in output.err
    assert f"note: {DEPTH.name}: not in llama.cpp" in output.err
    assert "12 s, at most 3 GB of memory" in output.err


def test_lines_for_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    with watching(quiet=False) as watcher:
        watcher.begin(2)
        watcher.started("wanda", "make")
        watcher.moved("wanda", "rank", 1, 2)
        watcher.ended("wanda", "")
        watcher.ended("width", "no memory")
        watcher.note("a note")
    first, second, note = capsys.readouterr().err.splitlines()
    assert first.startswith("[1/2] 0 s, about 0 s left: wanda")
    assert second.endswith("width failed: no memory")
    assert note == "note: a note"


def test_nothing_is_shown_when_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with watching(quiet=True) as watcher:
        watcher.begin(1)
        watcher.ended("wanda", "no memory")
        watcher.note("a note")
    assert capsys.readouterr().err == ""
