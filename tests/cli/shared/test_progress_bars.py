"""Bars for several rows: each row has its own, and one bar holds the share of all."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.progress import Progress

from secateur.cli.shared.progress_bars import Board


@pytest.fixture
def bars() -> Progress:
    return Progress(console=Console(file=io.StringIO(), width=100), auto_refresh=False)


def _of(bars: Progress, name: str) -> float:
    return next(task.completed for task in bars.tasks if task.description.strip() == name)


def test_the_whole_is_the_finished_rows_and_the_shares_of_the_others(bars: Progress) -> None:
    board = Board(bars)
    board.begin(3)
    board.started("wanda", "make")
    board.started("width", "make")
    board.moved("wanda", "rank", 5, 10)
    assert _of(bars, "wanda") == 5
    assert _of(bars, "compare") == pytest.approx(0.5 / 5)
    board.moved("width", "rank", 10, 10)
    board.moved("width", "prune", 1, 4)
    assert _of(bars, "compare") == pytest.approx(0.1 + 1.25 / 5)
    board.ended("wanda", "")
    assert _of(bars, "compare") == pytest.approx(1 + 1.25 / 5)
    assert [task.description.strip() for task in bars.tasks] == ["compare", "width"]


def test_a_share_never_falls_and_is_less_than_one_until_the_end(bars: Progress) -> None:
    board = Board(bars)
    board.begin(1)
    board.started("wanda", "make")
    for task in ("rank", "prune", "export", "check", "evaluate"):
        board.moved("wanda", task, 1, 1)
    assert _of(bars, "compare") == pytest.approx(0.99)
    board.moved("wanda", "evaluate", 0, 1)
    assert _of(bars, "compare") == pytest.approx(0.99)
    board.ended("wanda", "")
    assert _of(bars, "compare") == 1


def test_how_a_row_ended_is_printed_as_it_is(bars: Progress) -> None:
    board = Board(bars)
    board.begin(2)
    board.started("[wanda]", "time")
    board.ended("[wanda]", "no [memory]")
    board.ended("width", "")
    board.note("a note")
    stream = bars.console.file
    assert isinstance(stream, io.StringIO)
    assert stream.getvalue().splitlines() == ["✗ [wanda]: no [memory]", "✓ width", "a note"]
