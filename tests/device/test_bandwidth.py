"""Measured speeds of this machine."""

from __future__ import annotations

import pytest
import torch

from secateur.device import bandwidth
from secateur.device.bandwidth import measure_machine


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure for a moment only."""
    monkeypatch.setattr(bandwidth, "_SECONDS", 0.01)
    monkeypatch.setattr(bandwidth, "_SIDE", 128)


def test_this_machine() -> None:
    before = torch.get_num_threads()
    measured = measure_machine(before + 1, memory=1 << 30, stream_bytes=1 << 20)
    assert min(measured.read, measured.copy, measured.matrix) > 1e6
    assert measured.matrix_type in ("float32", "bfloat16")
    assert measured.threads == before + 1
    assert torch.get_num_threads() == before, "the threads of the process are as they were"


def test_rates_are_work_by_the_seconds_of_the_fastest_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """With half a second for every run, the work itself is left: bytes read, read and written, operations."""
    monkeypatch.setattr(bandwidth, "_fastest", lambda work: 0.5)
    measured = measure_machine(1, memory=1 << 25, stream_bytes=1 << 30)
    size = 1 << 22
    assert measured.read == size / 0.5, "an eighth of the memory at most"
    assert measured.copy == 2 * (size // 2) / 0.5
    assert measured.matrix == 2 * 128**3 / 0.5
