"""Free memory as a container sees it, and what a process and its children hold."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from secateur_runtime.sensors.cgroup import Cgroup
from secateur_runtime.sensors.machine import MachineMemory
from secateur_runtime.sensors.system_memory import SystemMemory, system_memory, tree_bytes


def container(folder: Path, *, limit: int, usage: int, cache: int = 0) -> Cgroup:
    """A control group of version 2 that holds `usage` bytes, `cache` of them pages of files."""
    group = folder / "cgroup" / "job"
    group.mkdir(parents=True)
    (group / "memory.max").write_text(f"{limit}\n")
    (group / "memory.current").write_text(f"{usage}\n")
    (group / "memory.stat").write_text(f"file {cache}\nslab_reclaimable 0\nfile_mapped 0\nshmem 0\n")
    (folder / "own").write_text("0::/job\n")
    return Cgroup(str(folder / "cgroup"), str(folder / "own"))


def machine(folder: Path, *, total: int, available: int) -> MachineMemory:
    path = folder / "meminfo"
    path.write_text(f"MemTotal: {total // 1024} kB\nMemAvailable: {available // 1024} kB\n")
    return MachineMemory(str(path))


def test_a_container_has_what_its_group_leaves(tmp_path: Path) -> None:
    whole = machine(tmp_path, total=64 << 30, available=60 << 30)
    assert system_memory([whole]) == SystemMemory(64 << 30, 60 << 30)
    group = container(tmp_path, limit=2 << 30, usage=1536 << 20, cache=512 << 20)
    assert system_memory([whole, group]) == SystemMemory(2 << 30, 1 << 30)


def test_a_container_on_a_busy_machine_has_what_the_machine_leaves(tmp_path: Path) -> None:
    whole = machine(tmp_path, total=8 << 30, available=1 << 20)
    assert system_memory([whole, container(tmp_path, limit=2 << 30, usage=0)]).free == 1 << 20


def test_a_group_over_its_limit_leaves_nothing(tmp_path: Path) -> None:
    whole = machine(tmp_path, total=8 << 30, available=4 << 30)
    assert system_memory([whole, container(tmp_path, limit=1 << 30, usage=2 << 30)]).free == 0


@pytest.mark.parametrize("limited", ["job", "job/step", "job/step/task"])
def test_the_limit_of_any_parent_counts(tmp_path: Path, limited: str) -> None:
    root = tmp_path / "cgroup"
    for group in ("job", "job/step", "job/step/task"):
        (root / group).mkdir(parents=True)
        (root / group / "memory.max").write_text("1000\n" if group == limited else "max\n")
        (root / group / "memory.current").write_text("400\n")
        (root / group / "memory.stat").write_text("file 0\n")
    (tmp_path / "own").write_text("0::/job/step/task\n")
    whole = machine(tmp_path, total=8 << 30, available=4 << 30)
    assert system_memory([whole, Cgroup(str(root), str(tmp_path / "own"))]) == SystemMemory(1000, 600)


def test_without_groups_the_machine_is_all(tmp_path: Path) -> None:
    whole = machine(tmp_path, total=8 << 30, available=4 << 30)
    none = Cgroup(str(tmp_path / "none"), str(tmp_path / "none"))
    assert system_memory([whole, none]) == SystemMemory(8 << 30, 4 << 30)


def test_a_process_counts_with_its_children() -> None:
    child = "held = bytearray(40 << 20); print('ready', flush=True); input()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
        alone = pages * os.sysconf("SC_PAGE_SIZE")
        assert tree_bytes(process.pid) - alone > 40 << 20
        process.communicate(b"\n")
    assert tree_bytes(process.pid) == 0
