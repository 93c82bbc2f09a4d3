"""A small protocol, and rows that are worked on in the process of the test."""

from __future__ import annotations

from pathlib import Path

import pytest

from secateur.calibrate.calibration import Calibration
from secateur.core.progress import Silent
from secateur.pipeline.compare.protocol import Protocol
from secateur.pipeline.compare.row_work import make, time_row
from secateur.pipeline.compare.worker_pool import Failure, Task, WorkerPool

PROTOCOL = Protocol(calibration=Calibration(samples=2, window=64), window=64, count=2, backends=())


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have rows worked on in this process; returns the names of those that were."""
    done: list[str] = []

    def run(pool: WorkerPool, tasks: list[Task]) -> list[Failure]:
        for task in tasks:
            done.extend(task.names)
            for name in task.names:
                {"make": make, "time": time_row}[task.action](Path(pool.command(task, 0)[3]), name, Silent())
        return []

    monkeypatch.setattr(WorkerPool, "run", run)
    return done
