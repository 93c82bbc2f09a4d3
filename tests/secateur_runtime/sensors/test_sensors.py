"""What the kernel's files say, of both versions of control groups."""

from __future__ import annotations

from pathlib import Path

from secateur_runtime.sensors import MemoryBound, Sensed, Senses


def test_senses(tmp_path: Path) -> None:
    path = tmp_path / "memory.pressure"
    path.write_text("some avg10=50.00 avg60=1.00 avg300=0.00 total=5\n")
    tight, loose = MemoryBound("tight", 10, 9), MemoryBound("loose", 100, 5)
    sensed = Senses([lambda: loose, lambda: None, lambda: tight], [str(path), str(tmp_path / "absent")])()
    assert sensed == Sensed((loose, tight), 0.5)
    assert sensed.tightest == tight
    assert Senses([])().tightest is None
