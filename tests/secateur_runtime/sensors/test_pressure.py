"""Pressure stall information, from files as the kernel writes them."""

from __future__ import annotations

from pathlib import Path

from secateur_runtime.sensors.pressure import stalled


def test_pressure(tmp_path: Path) -> None:
    path = tmp_path / "memory.pressure"
    path.write_text(
        "some avg10=12.50 avg60=1.00 avg300=0.00 total=5\nfull avg10=99.00 avg60=0 avg300=0 total=1\n"
    )
    assert stalled(str(path)) == 0.125
    path.write_text("odd")
    assert stalled(str(path)) == stalled(str(tmp_path / "absent")) == 0.0
