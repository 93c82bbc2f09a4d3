"""Facts about this machine that the operating system knows."""

from __future__ import annotations

import math
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from secateur_runtime.cores import usable_cores
from secateur_runtime.sensors.system_memory import system_memory

TOLD = (
    *(
        "sse4_2",
        "avx",
        "avx2",
        "f16c",
        "fma",
        "avx_vnni",
        "avx512f",
        "avx512_vnni",
        "avx512_bf16",
        "avx512_vbmi2",
        "avx512_fp16",
    ),
    *("amx_int8", "amx_bf16", "asimd", "neon", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
)
"""Instruction sets that change how fast a model runs, as Linux names them."""
_SPARSE_FROM = 8.0
_QUERY = ("name", "memory.total", "compute_cap")


@dataclass(frozen=True, slots=True)
class Gpu:
    """An NVIDIA GPU as its driver describes it.

    memory: bytes. sparse: its tensor cores skip two of four weights (Ampere and later).
    """

    name: str
    memory: int
    sparse: bool


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine as the operating system describes it.

    cores: those that this process may use. free: the idle ones of them. clock: Hz, 0 where unknown.
    memory: bytes of the machine, or of the control group that limits this process. available: bytes free now.
    battery: the machine has one.
    """

    cpu: str
    cores: int
    free: int
    clock: float
    isa: tuple[str, ...]
    memory: int
    available: int
    battery: bool
    gpu: Gpu | None


def probe() -> Machine:
    """Return what this machine is; what cannot be known is empty or 0."""
    told = cpu_facts(_read(Path("/proc/cpuinfo")))
    cores = usable_cores()
    memory = system_memory()
    return Machine(
        cpu=told["name"] or platform.processor() or platform.machine(),
        cores=cores,
        free=min(cores, max(1, round(cores - psutil.getloadavg()[0]))),
        clock=_clock(told),
        isa=tuple(name for name in TOLD if name in told["flags"].split()),
        memory=memory.total,
        available=memory.free,
        battery=_has_battery(),
        gpu=_gpu(),
    )


def cpu_facts(text: str) -> Mapping[str, str]:
    """Return `name`, `flags` and `mhz` from the text of /proc/cpuinfo; empty where it has none."""
    rows: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        rows.setdefault(key.strip().lower(), value.strip())
    name = rows.get("model name") or rows.get("model") or rows.get("hardware") or ""
    return {
        "name": name if not name.isdigit() else "",
        "flags": rows.get("flags") or rows.get("features") or "",
        "mhz": rows.get("cpu mhz", ""),
    }


def gpu_from(text: str) -> Gpu | None:
    """Return the first GPU in a row of `nvidia-smi --query-gpu` (name, memory in MiB, compute capability).

    None for anything else.
    """
    parts = [part.strip() for part in text.strip().partition("\n")[0].split(",")]
    if (
        len(parts) != len(_QUERY)
        or not re.fullmatch(r"[0-9]+(\.[0-9]+)?", parts[1])
        or not re.fullmatch(r"[0-9]+\.[0-9]+", parts[2])
    ):
        return None
    return Gpu(parts[0], int(float(parts[1]) * 2**20), float(parts[2]) >= _SPARSE_FROM)


def _gpu() -> Gpu | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader,nounits"]
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
        return gpu_from(done.stdout) if done.returncode == 0 else None
    return None


def _clock(told: Mapping[str, str]) -> float:
    fastest = 0.0
    with suppress(OSError, ValueError):
        fastest = float(_read(Path("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq"))) * 1e3
    with suppress(ValueError):
        fastest = fastest or float(told["mhz"]) * 1e6
    return fastest if math.isfinite(fastest) else 0.0


def _has_battery() -> bool:
    sensors = getattr(psutil, "sensors_battery", None)
    with suppress(OSError):
        return sensors is not None and sensors() is not None
    return False


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
