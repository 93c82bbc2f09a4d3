"""Memory of this process as the operating system counts it."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from contextlib import suppress
from pathlib import Path

from secateur.runtime import Memory

_STATUS = Path("/proc/self/status")


def process_memory() -> Memory:
    """Return resident, peak and file-backed bytes; where there is no /proc, the peak alone is known."""
    if not _STATUS.exists():
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        return Memory(peak, peak, 0)
    rows = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    sizes = {key: int(rows[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM", "RssFile")}
    return Memory(sizes["VmRSS"], sizes["VmHWM"], sizes["RssFile"])


def forget_peak() -> None:
    """Give freed memory back and let the peak start from what is held now, so that loading does not count."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
