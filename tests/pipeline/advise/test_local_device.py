"""This machine as a device: measured once, remembered, and forgotten where it is another one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from secateur.core.progress import Progress, Silent
from secateur.device.bandwidth import MeasuredRates
from secateur.device.probe import Machine
from secateur.device.profile import LOCAL, Rates, load_profile
from secateur.pipeline.advise import local_device
from secateur.pipeline.advise.local_device import find_device, probe_device, profile_of, remember, remembered
from secateur_runtime.errors import UsageError

MACHINE = Machine("Test CPU", 4, 3, 2e9, ("avx2",), 8 * 10**9, 4 * 10**9, False, None)
MEASURED = MeasuredRates(3, 1e10, 8e9, 1e11, "bfloat16")


@pytest.fixture
def clocked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """Measurements that take no time, and an empty cache; returns the threads of those that were made."""
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(local_device, "probe", lambda: MACHINE)
    made: list[int] = []

    def clock(threads: int, progress: Progress) -> Rates:
        made.append(threads)
        return Rates(
            threads=threads,
            layer=2e-5,
            weights={"f16": 8e9},
            cache=4e9,
            base=6e7,
            copied=[],
            spread=0.02,
            runtime="llama.cpp",
            taken="2026-01-01",
        )

    monkeypatch.setattr(local_device, "clock_machine", clock)
    monkeypatch.setattr(
        local_device, "measure_machine", lambda threads, memory: replace(MEASURED, threads=threads)
    )
    return made


def test_a_profile_says_where_each_figure_is_from() -> None:
    profile = profile_of(MACHINE, MEASURED)
    figures = {name: figure.value for name, figure in profile.figures.items()}
    assert figures == {"cores": 4, "memory": 8e9, "stream": 1e10, "matrix": 1e11, "clock": 2e9}
    assert profile.figures["cores"].source == "told by the operating system"
    assert "3 threads" in profile.figures["stream"].source
    assert profile.figures["matrix"].note == "bfloat16 matrix products"
    assert all(figure.confirmed for figure in profile.figures.values())
    assert (profile.kind, profile.isa.names, profile.moving_memory) == ("desktop", ["avx2"], True)
    without = profile_of(replace(MACHINE, battery=True, clock=0.0), MEASURED)
    assert without.kind == "laptop"
    assert "clock" not in without.figures


def test_it_is_measured_once(clocked: list[int]) -> None:
    assert remembered() is None
    first = find_device(LOCAL, Silent())
    assert first.rates
    assert find_device(LOCAL, Silent()) == first == remembered()
    assert clocked == [3], "with as many threads as there are free cores"
    assert find_device("pi5", Silent()) == load_profile("pi5")


def test_another_machine_is_measured_anew(clocked: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    probe_device(threads=2)
    for other in (
        replace(MACHINE, cpu="Other"),
        replace(MACHINE, cores=8),
        replace(MACHINE, isa=("avx2", "fma")),
    ):
        monkeypatch.setattr(local_device, "probe", lambda other=other: other)
        assert remembered() is None
    monkeypatch.setattr(local_device, "probe", lambda: replace(MACHINE, available=1, free=1))
    assert remembered(), "a busy machine is the same one"
    assert clocked == [2]


def test_without_decoding_nothing_is_remembered(clocked: list[int]) -> None:
    assert probe_device(decode=False).profile.rates is None
    assert (clocked, remembered()) == ([], None)


def test_a_damaged_or_missing_cache_is_measured_anew(clocked: list[int], tmp_path: Path) -> None:
    probe_device()
    (path,) = (tmp_path / "cache").rglob("*.toml")
    path.write_text("name = ")
    assert remembered() is None


def test_a_cache_that_cannot_be_written_is_no_error(
    clocked: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path / "file"))
    remember(profile_of(MACHINE, MEASURED))
    assert remembered() is None
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("threads", [5, -1])
def test_threads_that_the_machine_has_not(clocked: list[int], threads: int) -> None:
    with pytest.raises(UsageError, match=f"^--threads {threads}: this machine lets us use 4 cores$"):
        probe_device(threads=threads)
    assert clocked == []
