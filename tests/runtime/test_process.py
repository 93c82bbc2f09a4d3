"""Memory of this process: what is taken is seen, and the peak can be forgotten."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from secateur.runtime.process import forget_peak, process_memory

MB = 1 << 20


def test_the_peak_counts_what_was_given_back() -> None:
    before = process_memory()
    block = np.ones(64 * MB, np.uint8)
    held = process_memory()
    assert held.resident - before.resident > 56 * MB
    assert held.peak >= held.resident > held.files >= 0
    del block
    assert process_memory().peak >= held.resident


def test_a_forgotten_peak_starts_from_what_is_held() -> None:
    status = Path("/proc/self/clear_refs")
    if not status.exists():
        pytest.skip("the kernel keeps no peak that can be reset")
    block = np.ones(64 * MB, np.uint8)
    high = process_memory().peak
    del block
    forget_peak()
    assert process_memory().peak < high - 32 * MB


def test_where_there_is_no_proc_the_peak_is_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secateur.runtime.process._STATUS", tmp_path / "none")
    found = process_memory()
    assert found.resident == found.peak > MB
    assert found.files == 0
