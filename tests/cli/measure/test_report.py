"""`secateur report` as a user meets it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.command import Secateur, json_of
from tests.present.comparisons import ROWS, write


def test_report_writes_the_formats_asked_for(secateur: Secateur, tmp_path: Path) -> None:
    write(tmp_path / "in")
    made = secateur("report", tmp_path / "in", "-o", tmp_path / "out", "--formats", "md,csv", "--json")
    body = json_of(made)
    assert [Path(path).name for path in body["files"]] == ["report.md", "report.csv"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.md", "report.csv"}
    assert body["rows"] == len(ROWS)


def test_a_mistake_is_one_line(secateur: Secateur, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "in")
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        ([tmp_path / "empty"], "is not the folder of a comparison"),
        ([tmp_path / "in", "--formats", "htlm"], "did you mean html"),
    ):
        code, out, error = secateur("report", *arguments)
        assert (code, out, error.count("\n")) == (2, "", 1)
        assert message in error
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, error = secateur("report", tmp_path / "in")
    assert code == 2
    assert "pip install 'secateur[report]'" in error
