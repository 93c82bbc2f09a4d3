"""A control group of one's own with a limit on memory, version 1 or 2: made, squeezed, watched, removed."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from pathlib import Path
from typing import Any

_ROOT = Path("/sys/fs/cgroup")
_NONE_V1 = "-1"


class Group:
    """A control group below that of this process, or at the root where none may be made there.

    Needs the right to make one.
    """

    def __init__(self, name: str) -> None:
        own = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
        self.version = 1 if (_ROOT / "memory").is_dir() else 2
        top = _ROOT / "memory" if self.version == 1 else _ROOT
        # Version 2 has no processes beside groups that are limited: there the group lies at the root.
        parent = top / own.get("memory", "/").lstrip("/") if self.version == 1 else top
        if self.version == 2:
            with contextlib.suppress(OSError):
                (top / "cgroup.subtree_control").write_text("+memory")
        self.path = parent / name
        self.path.mkdir()

    def run(self, command: list[str], **options: Any) -> subprocess.Popen[str]:
        """Start a command in the group."""

        def enter() -> None:
            (self.path / "cgroup.procs").write_text(str(os.getpid()))

        return subprocess.Popen(command, preexec_fn=enter, text=True, **options)

    def limit(self) -> int | None:
        """Return the limit in bytes, None where there is none."""
        text = self._read("memory.limit_in_bytes", "memory.max").strip()
        return int(text) if text.isdecimal() and int(text) < 1 << 60 else None

    def set_limit(self, size: int | None) -> bool:
        """Set the limit; return whether the kernel took it.

        Version 1 refuses one that is below what is held.
        """
        path = self.path / ("memory.limit_in_bytes" if self.version == 1 else "memory.max")
        try:
            path.write_text(str(size) if size is not None else _NONE_V1 if self.version == 1 else "max")
        except OSError:
            return False
        return True

    def used(self) -> int:
        """Return the bytes that are held, without pages of files that nobody has mapped."""
        stat = dict(line.split() for line in self._read("memory.stat", "memory.stat").splitlines())
        usage = int(self._read("memory.usage_in_bytes", "memory.current"))
        cache, mapped = ("total_cache", "total_mapped_file") if self.version == 1 else ("file", "file_mapped")
        return usage - max(0, int(stat[cache]) - int(stat[mapped]))

    def kills(self) -> int:
        """Return how many processes the kernel has killed here for want of memory."""
        rows = dict(line.split() for line in self._read("memory.oom_control", "memory.events").splitlines())
        return int(rows["oom_kill"])

    def remove(self) -> None:
        """Remove the group once its processes are gone."""
        for _ in range(100):
            with contextlib.suppress(OSError):
                self.path.rmdir()
                return
            time.sleep(0.1)

    def _read(self, first: str, second: str) -> str:
        return (self.path / (first if self.version == 1 else second)).read_text()
