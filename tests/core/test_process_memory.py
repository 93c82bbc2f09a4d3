from __future__ import annotations

import subprocess
import sys

import pytest

PROBE = """
from pathlib import Path
import sys
import torch
from secateur.core.process_memory import give_back, hold_little

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

if sys.argv[1] == "lean":
    hold_little()
# Freed after something small that stays, the large tensors are inside the heap and not at its end.
for _ in range(3):
    torch.ones(6 << 20).sum()
before, kept = resident(), []
for _ in range(8):
    large = torch.ones(3 << 20)
    kept.append(torch.ones(1 << 10))
    del large
held = resident() - before
give_back()
print(held, resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="measured as Linux counts it")
def test_freed_memory_goes_back() -> None:
    held, kept = {}, {}
    for how in ("plain", "lean"):
        done = subprocess.run([sys.executable, "-c", PROBE, how], check=True, capture_output=True, text=True)
        held[how], kept[how] = map(int, done.stdout.split())
    assert kept["plain"] < 2e6
    assert kept["lean"] < 2e6
    assert held["lean"] < 5e6
    if held["plain"] < 5e6:
        pytest.skip(
            "the allocator of this machine keeps nothing of its own accord, so that hold_little has nothing"
            " to show"
        )
