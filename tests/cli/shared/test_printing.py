"""Tables and JSON on stdout, progress on stderr."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from secateur.cli.shared import printing


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_result_is_one_json_object_with_sorted_keys(capsys: pytest.CaptureFixture[str]) -> None:
    printing.result({"b": [1, 2], "a": Path("x")}, as_json=True, title="not shown")
    out = capsys.readouterr().out
    assert json.loads(out) == {"a": "x", "b": [1, 2]}
    assert out.index('"a"') < out.index('"b"')


def test_a_result_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    printing.result({"kl_after": 0.123456789, "names": ["first", "second"]}, as_json=False, title="wrote [x]")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [
        ["wrote", "[x]"],
        ["kl", "after", "0.123457"],
        ["names", "first"],
        ["second"],
    ]


def test_columns_after_the_first_are_right_aligned_under_a_header(capsys: pytest.CaptureFixture[str]) -> None:
    printing.table([["a", "1"], ["bb", "1000"]], header=("name", "count"))
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["name", "count"]
    assert len(header.rstrip()) == len(first.rstrip()) == len(second.rstrip())
    assert first.startswith("a ")


def test_no_rows_leave_the_header(capsys: pytest.CaptureFixture[str]) -> None:
    printing.table([], header=("name", "count"))
    assert capsys.readouterr().out.split() == ["name", "count"]


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2.5e6, "2.5 MB"), (7.25e9, "7.25 GB"), (4e12, "4000 GB")],
)
def test_sizes(count: float, text: str) -> None:
    assert printing.size(count) == text


def test_progress_is_shown_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: dict[bool, str] = {}
    for quiet in (False, True):
        stream = Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        with printing.progress(quiet=quiet) as progress:
            progress.start("rank", 2)
            progress.step("block 0")
            progress.start("prune", 3, done=1)
            progress.note("a [note]")
        shown[quiet] = stream.getvalue()
    assert "a [note]" in shown[False]
    assert shown[True] == ""


def test_progress_is_silent_where_no_terminal_is(capsys: pytest.CaptureFixture[str]) -> None:
    with printing.progress(quiet=False) as progress:
        progress.start("rank", 1)
        progress.note("a note")
    assert capsys.readouterr().err == ""
