"""A ladder for the verbs of `adapt`, and a machine whose measurements take no time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.ladders import EXAMPLE

from secateur.device.bandwidth import MeasuredRates
from secateur.device.probe import Machine
from secateur.device.profile import Rates
from secateur_runtime.ladder import Rung

RATES = Rates(
    threads=1,
    layer=2e-5,
    weights={"f16": 8e9, "q8_0": 5e9},
    cache=4e9,
    base=6e7,
    copied=[],
    spread=0.02,
    runtime="llama.cpp",
    taken="2026-01-01",
)


@pytest.fixture
def _nothing_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is remembered of this machine, and the screen is wide."""
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def _measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose measurements take no time."""
    machine = Machine("Test CPU", 4, 3, 2e9, ("avx2",), 8 * 10**9, 4 * 10**9, False, None)
    monkeypatch.setattr("secateur.pipeline.advise.local_device.probe", lambda: machine)
    monkeypatch.setattr("secateur.pipeline.advise.advise.probe", lambda: machine)
    monkeypatch.setattr(
        "secateur.pipeline.advise.local_device.measure_machine",
        lambda threads, memory: MeasuredRates(threads, 1e10, 8e9, 1e11, "float32"),
    )
    monkeypatch.setattr(
        "secateur.pipeline.advise.local_device.clock_machine",
        lambda threads, progress: RATES.model_copy(update={"threads": threads}),
    )


@pytest.fixture
def ladder(tmp_path: Path) -> Path:
    """A ladder whose sizes are such that memory decides."""

    def sized(rung: Rung) -> Rung:
        return replace(rung, weight_bytes=rung.weight_bytes * 10_000)

    replace(EXAMPLE, whole=sized(EXAMPLE.whole), rungs=tuple(map(sized, EXAMPLE.rungs))).save(
        tmp_path / "ladder.json"
    )
    return tmp_path / "ladder.json"
