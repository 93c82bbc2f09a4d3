"""What a machine tells, and what it is measured to do."""

from __future__ import annotations

import pytest

from secateur.device.bandwidth import measure_machine
from secateur.device.probe import Gpu, cpu_facts, gpu_from, probe
from secateur.device.quality_model import factor

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
    measured = measure_machine(1, memory=machine.memory, stream_bytes=1 << 22)
    assert min(measured.read, measured.copy, measured.matrix) > 1e6
    assert measured.matrix_type in ("float32", "bfloat16")


def test_costs_are_those_that_were_measured_and_grow_beyond() -> None:
    assert factor("dense", 0.0, "f16") == (1.0, True)
    for kind, share, wanted in (("width", 0.2, 1.358), ("depth", 0.1, 1.559)):
        found, measured = factor(kind, share, "f16")
        assert found == pytest.approx(wanted)
        assert measured
    assert factor("width", 0.1, "f16")[0] == pytest.approx(1.358**0.5)
    farther, measured = factor("width", 0.4, "f16")
    assert farther > 1.358**2
    assert not measured
    assert factor("dense", 0.0, "q4_0")[0] > factor("dense", 0.0, "q8_0")[0]
