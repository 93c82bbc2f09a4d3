"""A ladder made by another process: the same as made here, its progress told, and its error one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import Maker

from secateur.adapt.serving.ladder_worker import make_ladder, rank_and_price
from secateur.core.progress import Silent
from secateur_runtime.errors import UsageError


class _Steps(Silent):
    """Keeps the tasks that begin, and counts the steps."""

    def __init__(self) -> None:
        self.tasks: list[str] = []
        self.steps = 0

    def start(self, task: str, total: int, done: int = 0) -> None:
        self.tasks.append(task)

    def step(self, detail: str = "") -> None:
        self.steps += 1


def test_another_process_makes_the_same_ladder(tiny: Maker, tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    here = _Steps()
    there = _Steps()
    rank_and_price(str(tiny("llama")), tmp_path / "here" / "ladder.json", here)
    make_ladder(str(tiny("llama")), tmp_path / "there" / "ladder.json", 1, there)
    assert (there.tasks, there.steps) == (here.tasks, here.steps)
    assert "price" in there.tasks
    for name in ("ranked.json", "ladder.json"):
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


def test_the_reason_of_the_other_process_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^no ladder of nowhere could be made \(.*nowhere.*\): --ladder"):
        make_ladder("nowhere", tmp_path / "ladder.json", 1, Silent())
    assert not list(tmp_path.iterdir())
