"""The memory limits of the control groups of this process, version 1 and version 2."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from secateur_runtime.sensors import MemoryBound, sizes

_UNLIMITED = 1 << 60
"""Version 1 reports a number near 2^63 where there is no limit."""


@dataclass(frozen=True, slots=True)
class _Version:
    """Names of the files of one version, and of entries in `memory.stat`.

    reclaimable: entries that count memory which may be dropped. needed: parts of those that may not.
    """

    limit: str
    usage: str
    reclaimable: tuple[str, ...]
    needed: tuple[str, ...]


_V1 = _Version(
    "memory.limit_in_bytes", "memory.usage_in_bytes", ("total_cache",), ("total_mapped_file", "total_shmem")
)
_V2 = _Version("memory.max", "memory.current", ("file", "slab_reclaimable"), ("file_mapped", "shmem"))


class Cgroup:
    """The tightest limit of this process's group and its ancestors.

    root: where groups are mounted. own: file in which the kernel lists the groups of this process.
    """

    def __init__(self, root: str = "/sys/fs/cgroup", own: str = "/proc/self/cgroup") -> None:
        self._root = Path(root)
        self._own = Path(own)

    def __call__(self) -> MemoryBound | None:
        """Return the bound with the least free memory, or None if there is no limit."""
        found = [bound for group, version in self._groups() if (bound := _bound(group, version)) is not None]
        return min(found, key=lambda bound: bound.free, default=None)

    def pressure_file(self) -> str:
        """Return the path of the group's pressure file, which exists in version 2 only; empty without one."""
        return next(
            (str(group / "memory.pressure") for group, version in self._groups() if version is _V2), ""
        )

    def _groups(self) -> Iterator[tuple[Path, _Version]]:
        """Yield the group of this process and its ancestors, the nearest first, each with its version."""
        try:
            lines = self._own.read_text(encoding="utf-8").splitlines()
        except OSError:
            return
        rows = [line.split(":", 2) for line in lines if line.count(":") >= 2]
        for number, controllers, path in rows:
            if "memory" in controllers.split(","):
                yield from ((group, _V1) for group in _upwards(self._root / "memory", path))
            elif number == "0":
                # Where both versions are mounted, the second one lies next to the folders of the first.
                root = self._root / "unified" if (self._root / "unified").is_dir() else self._root
                yield from ((group, _V2) for group in _upwards(root, path))


def _upwards(root: Path, path: str) -> Iterator[Path]:
    """Yield the folder of a group and those of its ancestors.

    In a container the group may appear at the root itself.
    """
    parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
    own = root.joinpath(*parts)
    if not own.is_dir():
        own = root
        parts = []
    yield own
    yield from (root.joinpath(*parts[:count]) for count in range(len(parts) - 1, -1, -1))


def _bound(group: Path, version: _Version) -> MemoryBound | None:
    try:
        told = (group / version.limit).read_text(encoding="ascii").strip()
        usage = int((group / version.usage).read_text(encoding="ascii"))
        stat = sizes((group / "memory.stat").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    # Version 1 also tells the limit of ancestors that a container does not see.
    limits = [int(told)] if told.isdecimal() else []
    limit = min([*limits, stat.get("hierarchical_memory_limit", _UNLIMITED)])
    if limit >= _UNLIMITED:
        return None
    # The kernel drops unmapped pages of files when it must. Its own memory appears in `usage` only.
    reclaimable = sum(stat.get(name, 0) for name in version.reclaimable)
    needed = sum(stat.get(name, 0) for name in version.needed)
    return MemoryBound("cgroup", limit, usage - max(reclaimable - needed, 0))
