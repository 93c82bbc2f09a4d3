"""This machine as a device: probed, measured, and remembered for the next question."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from secateur.core.progress import Progress, Silent
from secateur.device.bandwidth import MeasuredRates, measure_machine
from secateur.device.probe import Machine, probe
from secateur.device.profile import (
    LOCAL,
    Figure,
    Kind,
    Names,
    Profile,
    load_profile,
    parse_profile,
    write_profile,
)
from secateur.pipeline.advise.decode_timing import clock_machine
from secateur_runtime.cache_folder import cache_folder
from secateur_runtime.cores import check_threads
from secateur_runtime.errors import OutputError, UsageError

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Probed:
    """This machine: what it says of itself, what was measured, and both as a profile."""

    machine: Machine
    measured: MeasuredRates
    profile: Profile


def probe_device(
    *, threads: int | None = None, decode: bool = True, progress: Progress | None = None
) -> Probed:
    """Probe and measure this machine, and remember the result for `--device local`.

    threads: of every measurement; by default as many as there are free cores. decode: time llama.cpp too,
    half a minute.
    Raises UsageError for more threads than cores, MissingExtraError without xllamacpp.
    """
    progress = progress or Silent()
    machine = probe()
    count = threads or machine.free
    check_threads(count, machine.cores)
    progress.start("memory and matrices", 1)
    measured = measure_machine(count, memory=machine.memory)
    progress.step()
    found = profile_of(machine, measured)
    if decode:
        found = found.model_copy(update={"rates": clock_machine(count, progress)})
        remember(found)
    return Probed(machine, measured, found)


def profile_of(machine: Machine, measured: MeasuredRates) -> Profile:
    """Return what was probed and measured as a profile.

    The CPU is what counts, since that is where llama.cpp runs here.
    """
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    told = "told by the operating system"
    timed = f"secateur device, {measured.threads} threads, best of several runs, {today}"
    figures = {
        "cores": Figure(value=float(machine.cores), source=told, confirmed=True),
        "memory": Figure(value=float(machine.memory), source=told, confirmed=True),
        "stream": Figure(value=measured.read, source=timed, confirmed=True, note="float32 matrix by vector"),
        "matrix": Figure(
            value=measured.matrix,
            source=timed,
            confirmed=True,
            note=f"{measured.matrix_type} matrix products",
        ),
    }
    if machine.clock:
        figures["clock"] = Figure(value=machine.clock, source=told, confirmed=True)
    kind: Kind = "laptop" if machine.battery else "desktop"
    return Profile(
        name=f"this machine ({machine.cpu})",
        kind=kind,
        processor="cpu",
        sparse_tensor_cores=False,
        moving_memory=True,
        isa=Names(names=list(machine.isa), source=told, confirmed=True),
        figures=figures,
    )


def find_device(ref: str, progress: Progress) -> Profile:
    """Return the profile that `--device` names; this machine is measured once and then remembered.

    Raises UsageError for an unknown one.
    """
    if ref != LOCAL:
        return load_profile(ref)
    return remembered() or probe_device(progress=progress).profile


def remembered() -> Profile | None:
    """Return what was measured on this machine before.

    None where nothing was, or where it is another machine by now.
    """
    try:
        path = _place()
        found = parse_profile(path.read_text(), str(path))
    except (OSError, UnicodeDecodeError, OutputError, UsageError):
        return None
    machine = probe()
    same = (
        found.isa.names == list(machine.isa)
        and found.figure("cores") == machine.cores
        and machine.cpu in found.name
    )
    return found if same and found.rates else None


def remember(profile: Profile) -> None:
    """Keep a profile for the next question; where nothing can be kept, the next one measures anew."""
    try:
        write_profile(profile, _place(), overwrite=True)
    except OutputError:
        return


def _place() -> Path:
    return cache_folder() / f"device-{_VERSION}.toml"
