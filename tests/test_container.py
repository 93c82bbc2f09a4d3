"""What the tool may use in a container: the memory of its control group, not that of the machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import Maker
from tests.secateur_runtime.sensors.test_system_memory import container

from secateur.adapt.replay import speed_model
from secateur.calibrate.self_sampled import sample_windows
from secateur.device.bandwidth import MeasuredRates
from secateur.device.probe import probe
from secateur.model.handle import open_model
from secateur_runtime.errors import UsageError
from secateur_runtime.sensors.machine import MachineMemory
from secateur_runtime.sensors.system_memory import system_memory


@pytest.fixture(autouse=True)
def _contained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group of 1 MiB that is full."""
    sensors = (MachineMemory(), container(tmp_path, limit=1 << 20, usage=1 << 20))
    monkeypatch.setattr(system_memory, "__defaults__", (sensors,))


def test_a_machine_has_the_memory_of_its_group() -> None:
    found = probe()
    assert (found.memory, found.available) == (1 << 20, 0)


def test_a_model_that_does_not_fit_the_group_writes_no_text(tiny: Maker) -> None:
    with pytest.raises(UsageError, match="--calib self needs the whole model in memory"):
        sample_windows(open_model(str(tiny("llama"))), 1, 8, 0)


def test_a_measurement_takes_the_memory_of_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []

    def measure(threads: int, *, memory: int) -> MeasuredRates:
        given.append(memory)
        return MeasuredRates(threads, 1e10, 8e9, 1e11, "float32")

    monkeypatch.setattr(speed_model, "measure_machine", measure)
    speed_model.speed_of("local")
    assert given == [1 << 20]
