"""Reports: a file for each format asked for, and no other."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from tests.present.comparisons import ROWS, WIDTH, write

from secateur.present.report import report
from secateur_runtime.errors import MissingExtraError, RecordError, UsageError


def test_text_needs_no_vega(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    folder = write(tmp_path / "in")
    found = report(folder, tmp_path / "out", ("md", "csv"))
    assert [path.name for path in found.files] == ["report.md", "report.csv"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.md", "report.csv"}
    rows = list(csv.DictReader((tmp_path / "out" / "report.csv").read_text().splitlines()))
    assert [row["method"] for row in rows] == [row.method for row in ROWS]
    text = (tmp_path / "out" / "report.md").read_text()
    assert text.startswith("# small: pruning compared\n")
    assert text.index("## The kinds of pruning") < text.index("## Every row")
    assert len(found.cells) == len(found.lines) == len(ROWS)
    with pytest.raises(MissingExtraError, match="charts need Vega"):
        report(folder, tmp_path / "out", ("html",))


def test_charts_are_files_next_to_it(tmp_path: Path) -> None:
    pytest.importorskip("vl_convert", reason="pip install 'secateur[report]'")
    found = report(write(tmp_path), formats=("png", "html"))
    assert [path.name for path in found.files] == [
        *("report.html", "quality-size.png", "quality-speed.png", "removed.png")
    ]
    assert all(path.parent == tmp_path for path in found.files)
    assert WIDTH.name in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"unknown format 'htm' \(did you mean html\?\); known: html, md, csv, png"
    ):
        report(write(tmp_path / "in"), formats=("htm",))
    with pytest.raises(RecordError):
        report(tmp_path / "none")
