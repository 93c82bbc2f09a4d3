"""A ranking that was killed continues where it was."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.adapt.ranking.test_rank import HOW

from secateur.adapt.ranking.rank import rank
from secateur.core.progress import Silent
from secateur.model.handle import open_model
from secateur_runtime.errors import OutputError

Maker = Callable[..., Path]


def test_a_killed_ranking_goes_on_where_it_was(tiny: Maker, tmp_path: Path) -> None:
    """Killed outright twice, by a process of its own.

    What comes out is byte for byte what an uninterrupted run writes.
    """
    model, out = tiny("llama", num_hidden_layers=5), tmp_path / "ladder.json"
    whole, whole_cost = rank(open_model(str(model)), HOW, out=tmp_path / "whole.json")
    source = f"""
import os, sys
from secateur.adapt.ranking import rank, resume
from secateur.model.handle import open_model
from tests.adapt.ranking.test_rank import HOW

class Killed(resume.Unfinished):
    def keep(self, search, rungs):
        super().keep(search, rungs)
        if len(rungs) == last:
            os.kill(os.getpid(), 9)

resume.Unfinished = Killed
for last in (2, 5):
    if not os.fork():
        rank.rank(open_model({str(model)!r}), HOW, out=__import__("pathlib").Path({str(out)!r}))
        os._exit(0)
    print(-os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
    sys.stdin.readline()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", source],
        cwd=Path(__file__).parents[3],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    for _ in (2, 5):
        assert process.stdout.readline() == f"{signal.SIGKILL}\n"
        assert not out.exists()
        with pytest.raises(OutputError, match="unfinished run with other settings"):
            rank(open_model(str(model)), replace(HOW, floor=0.5), out=out)
        process.stdin.write("\n")
        process.stdin.flush()
    process.communicate()
    notes = _Counted()
    ladder, cost = rank(open_model(str(model)), HOW, out=out, progress=notes)
    assert (ladder, cost) == (whole, whole_cost)
    assert out.read_bytes() == (tmp_path / "whole.json").read_bytes()
    assert notes.ranked == len(whole) - 1 - 5
    assert not (tmp_path / "ladder.json.partial").exists()


class _Counted(Silent):
    """Counts the steps of the search."""

    def __init__(self) -> None:
        self.task, self.ranked = "", 0

    def start(self, task: str, total: int, done: int = 0) -> None:
        self.task = task

    def step(self, detail: str = "") -> None:
        self.ranked += self.task == "rank"
