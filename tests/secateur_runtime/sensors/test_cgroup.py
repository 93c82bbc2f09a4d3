"""What the files of control groups say, in version 1 and version 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from secateur_runtime.sensors import MemoryBound
from secateur_runtime.sensors.cgroup import Cgroup

NONE_V1 = str(2**63 - 4096)


def _v1(folder: Path, limit: int | str, usage: int, **stat: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{usage}\n")
    (folder / "memory.stat").write_text("".join(f"{name} {value}\n" for name, value in stat.items()))


def _v2(folder: Path, limit: int | str, usage: int, **stat: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{usage}\n")
    (folder / "memory.stat").write_text("".join(f"{name} {value}\n" for name, value in stat.items()))


def _own(tmp_path: Path, text: str) -> Cgroup:
    (tmp_path / "own").write_text(text)
    return Cgroup(str(tmp_path / "fs"), str(tmp_path / "own"))


def test_version_1(tmp_path: Path) -> None:
    sensor = _own(tmp_path, "5:cpu,cpuacct:/a\n4:memory:/a/b\n0::/\n")
    memory = tmp_path / "fs" / "memory"
    (tmp_path / "fs" / "unified").mkdir(parents=True)
    _v1(memory, NONE_V1, 9000)
    _v1(memory / "a", 5000, 4000, total_cache=1500, total_mapped_file=300, total_shmem=200)
    _v1(memory / "a" / "b", NONE_V1, 3000, total_cache=1000)
    # 1,000 of the cache are pages of files that nobody has mapped.
    assert sensor() == MemoryBound("cgroup", 5000, 3000)
    _v1(memory / "a" / "b", 2500, 2400)
    assert sensor() == MemoryBound("cgroup", 2500, 2400), "the one that leaves least counts"
    assert sensor.pressure_file().endswith("unified/memory.pressure")


def test_version_2(tmp_path: Path) -> None:
    sensor = _own(tmp_path, "0::/user/one\n")
    root = tmp_path / "fs"
    _v2(root / "user" / "one", "max", 100)
    assert sensor() is None
    _v2(root / "user", 8000, 7000, anon=5000, file=1500, file_mapped=400, shmem=100, slab_reclaimable=500)
    assert sensor() == MemoryBound("cgroup", 8000, 5500)
    assert MemoryBound("cgroup", 8000, 5500).free == 2500
    assert sensor.pressure_file() == str(root / "user" / "one" / "memory.pressure")


def test_a_container_sees_its_group_at_the_root(tmp_path: Path) -> None:
    sensor = _own(tmp_path, "0::/docker/0123\n")
    _v2(tmp_path / "fs", 700, 600)
    assert sensor() == MemoryBound("cgroup", 700, 600)


@pytest.mark.parametrize("own", ["", "nonsense\n", "4:memory:/../../up\n0::/x\n"])
def test_what_cannot_be_read_is_no_limit(tmp_path: Path, own: str) -> None:
    sensor = _own(tmp_path, own)
    assert sensor() is None
    _v1(tmp_path / "fs" / "memory", "many", 1)
    assert sensor() is None
    assert Cgroup(str(tmp_path), str(tmp_path / "absent"))() is None


def test_this_process() -> None:
    room = Cgroup()()
    assert room is None or 0 < room.used <= room.limit


def test_version_1_tells_the_limit_of_a_parent_that_a_container_does_not_see(tmp_path: Path) -> None:
    sensor = _own(tmp_path, "4:memory:/kubepods/pod/box\n")
    memory = tmp_path / "fs" / "memory"
    _v1(memory, NONE_V1, 300, hierarchical_memory_limit=int(NONE_V1))
    assert sensor() is None
    _v1(memory, NONE_V1, 300, hierarchical_memory_limit=1000)
    assert sensor() == MemoryBound("cgroup", 1000, 300)
    _v1(memory, 700, 300, hierarchical_memory_limit=1000)
    assert sensor() == MemoryBound("cgroup", 700, 300)
