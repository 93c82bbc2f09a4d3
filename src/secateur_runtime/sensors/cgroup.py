"""The limit of the control group that this process is in, or of the nearest ancestor that has one.

Version 1 and version 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from secateur_runtime.sensors import MemoryBound, sizes

_UNLIMITED = 1 << 60
"""Version 1 says a number near 2^63 where it means none."""


@dataclass(frozen=True, slots=True)
class _Version:
    """How one version calls its files, and the entries of `memory.stat`.

    What could be dropped, and what of that cannot without harm.
    """

    limit: str
    usage: str
    loose: tuple[str, ...]
    bound: tuple[str, ...]


_V1 = _Version(
    "memory.limit_in_bytes", "memory.usage_in_bytes", ("total_cache",), ("total_mapped_file", "total_shmem")
)
_V2 = _Version("memory.max", "memory.current", ("file", "slab_reclaimable"), ("file_mapped", "shmem"))


class Cgroup:
    """The tightest limit on the way from this process's group to the root.

    root: where groups are mounted; own: what the kernel says of the process's groups.
    """

    def __init__(self, root: str = "/sys/fs/cgroup", own: str = "/proc/self/cgroup") -> None:
        self._root = Path(root)
        self._own = Path(own)

    def __call__(self) -> MemoryBound | None:
        """Return the bound that leaves least, or None where there is no limit."""
        rooms = [room for group, version in self._groups() if (room := _room(group, version)) is not None]
        return min(rooms, key=lambda room: room.free, default=None)

    def pressure_file(self) -> str:
        """Return the path of the group's own pressure, which exists in version 2 alone."""
        return next(
            (str(group / "memory.pressure") for group, version in self._groups() if version is _V2), ""
        )

    def _groups(self) -> Iterator[tuple[Path, _Version]]:
        """Yield the group of this process and its ancestors, the nearest first, with the version each is of."""
        try:
            lines = self._own.read_text(encoding="utf-8").splitlines()
        except OSError:
            return
        rows = [line.split(":", 2) for line in lines if line.count(":") >= 2]
        for number, controllers, path in rows:
            if "memory" in controllers.split(","):
                yield from ((group, _V1) for group in _upwards(self._root / "memory", path))
            elif number == "0":
                # Where both versions are mounted, the second one lies beside the folders of the first.
                root = self._root / "unified" if (self._root / "unified").is_dir() else self._root
                yield from ((group, _V2) for group in _upwards(root, path))


def _upwards(root: Path, path: str) -> Iterator[Path]:
    """Yield the folder of a group and its ancestors.

    In a container the group may be seen at the root itself.
    """
    parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
    own = root.joinpath(*parts)
    if not own.is_dir():
        own = root
        parts = []
    yield own
    yield from (root.joinpath(*parts[:count]) for count in range(len(parts) - 1, -1, -1))


def _room(group: Path, version: _Version) -> MemoryBound | None:
    try:
        limit = (group / version.limit).read_text(encoding="ascii").strip()
        if not limit.isdecimal() or int(limit) >= _UNLIMITED:
            return None
        usage = int((group / version.usage).read_text(encoding="ascii"))
        stat = sizes((group / "memory.stat").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    # Pages of files that nobody has mapped go when they must. What the kernel itself takes is in `usage`
    # alone.
    loose = sum(stat.get(name, 0) for name in version.loose) - sum(
        stat.get(name, 0) for name in version.bound
    )
    return MemoryBound("cgroup", int(limit), usage - max(loose, 0))
