"""What a machine says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from secateur.device.probe import Gpu, cpu_facts, gpu_from, probe

X86 = (
    "processor\t: 0\nmodel\t\t: 167\nmodel name\t: Some CPU @ 2GHz\ncpu MHz\t\t: 2000.5\nflags\t\t: fpu avx2"
    " f16c\n\nprocessor\t: 1\nflags\t\t: none\n"
)


ARM = (
    "processor\t: 0\nFeatures\t: fp asimd asimddp\nCPU part\t: 0xd0b\n\nModel\t\t: Raspberry Pi 5 Model B Rev"
    " 1.0\n"
)


def test_processors_of_two_kinds() -> None:
    assert cpu_facts(X86) == {"name": "Some CPU @ 2GHz", "flags": "fpu avx2 f16c", "mhz": "2000.5"}
    assert cpu_facts(ARM) == {
        "name": "Raspberry Pi 5 Model B Rev 1.0",
        "flags": "fp asimd asimddp",
        "mhz": "",
    }
    assert cpu_facts("") == {"name": "", "flags": "", "mhz": ""}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("NVIDIA H100 80GB HBM3, 81559, 9.0\n", Gpu("NVIDIA H100 80GB HBM3", 81559 << 20, True)),
        ("Tesla T4, 15360, 7.5\nTesla T4, 15360, 7.5\n", Gpu("Tesla T4", 15360 << 20, False)),
        ("Orin (nvgpu), [N/A], 8.7", None),
        ("NVIDIA-SMI has failed because it couldn't communicate with the driver", None),
        ("", None),
    ],
)
def test_gpus(text: str, found: Gpu | None) -> None:
    assert gpu_from(text) == found


def test_this_machine() -> None:
    machine = probe()
    assert 1 <= machine.free <= machine.cores
    assert 0 < machine.available <= machine.memory
    assert machine.cpu
    assert machine.clock >= 0


def test_a_driver_that_fails_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path))
    program.write_text("#!/bin/sh\necho 'Tesla T4, 15360, 7.5'\n")
    program.chmod(0o755)
    assert probe().gpu == Gpu("Tesla T4", 15360 << 20, False)
    program.write_text("#!/bin/sh\necho 'Tesla T4, 15360, 7.5'\nexit 9\n")
    assert probe().gpu is None
