"""The memory of the machine, and a budget for this process."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from secateur_runtime.sensors import MemoryBound
from secateur_runtime.sensors.machine import MachineMemory, ProcessBudget


def test_machine(tmp_path: Path) -> None:
    info = tmp_path / "meminfo"
    info.write_text("MemTotal:       1000 kB\nMemFree:  10 kB\nMemAvailable:    400 kB\nMapped: 7 kB\n")
    assert MachineMemory(str(info))() == MemoryBound("machine", 1024_000, 614_400)
    for text in ("nothing\n", "MemTotal: 1000 kB\n"):
        info.write_text(text)
        assert MachineMemory(str(info))().limit == psutil.virtual_memory().total
    assert MachineMemory(str(tmp_path / "absent"))().limit == psutil.virtual_memory().total


def test_budget_counts_this_process() -> None:
    room = ProcessBudget(1 << 40)()
    assert room.limit == 1 << 40
    assert room.used == pytest.approx(psutil.Process().memory_info().rss, rel=0.1)
