"""The progress that shows nothing, and that which is written as lines and read again as the same."""

from __future__ import annotations

import json

import pytest

from secateur.core.progress import Progress, Silent, Told, repeat, tell


def test_silent_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    progress: Progress = Silent()
    progress.start("pruning", 2, done=1)
    progress.step("block 1")
    progress.note("one line")
    assert capsys.readouterr() == ("", "")


class _Heard(Silent):
    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []

    def start(self, task: str, total: int, done: int = 0) -> None:
        self.events.append((task, total, done))

    def step(self, detail: str = "") -> None:
        self.events.append((detail,))

    def note(self, line: str) -> None:
        self.events.append(("note", line))


def test_events_arrive_as_they_were_told(capsys: pytest.CaptureFixture[str]) -> None:
    told = Told()
    told.start("rank", 3, 1)
    told.step("0.5")
    told.note("half\nway")
    tell(error="no")
    heard = _Heard()
    lines = capsys.readouterr().out.encode().splitlines()
    bodies = [repeat(line, heard) for line in lines]
    assert heard.events == [("rank", 3, 1), ("0.5",), ("note", "half\nway")]
    assert bodies[-1] == {"error": "no"}


@pytest.mark.parametrize("line", [b"Loading weights: 3%", b"3", b"[1]", b"", b"\xff"])
def test_what_libraries_print_is_not_progress(line: bytes) -> None:
    heard = _Heard()
    assert repeat(line, heard) == {}
    assert heard.events == []


def test_events_are_lines_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    told = Told()
    told.start("prune", 3, 1)
    told.step("block 1")
    told.note("words")
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"task": "prune", "total": 3, "done": 1},
        {"step": "block 1"},
        {"note": "words"},
    ]
