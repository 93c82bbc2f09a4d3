from __future__ import annotations

import subprocess
import sys

import pytest

PROBE = """
from pathlib import Path
import os
import sys
import torch
from secateur.core.process_memory import give_back, hold_little

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

if not os.fork():
    hold_little()
elif os.wait()[1]:
    sys.exit(1)
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
    done = subprocess.run([sys.executable, "-c", PROBE], check=True, capture_output=True, text=True)
    lean, plain = (map(int, line.split()) for line in done.stdout.splitlines())
    held, kept = (dict(zip(("lean", "plain"), each, strict=True)) for each in zip(lean, plain, strict=True))
    assert kept["plain"] < 2e6
    assert kept["lean"] < 2e6
    assert held["lean"] < 5e6
    if held["plain"] < 5e6:
        pytest.skip(
            "the allocator of this machine keeps nothing of its own accord, so that hold_little has nothing"
            " to show"
        )
