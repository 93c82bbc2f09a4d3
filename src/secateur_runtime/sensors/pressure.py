"""Linux pressure stall information (PSI) for memory."""

from __future__ import annotations

import re
from pathlib import Path

MACHINE = "/proc/pressure/memory"
_SOME = re.compile(r"^some avg10=([\d.]+) ", re.MULTILINE)


def stalled(path: str) -> float:
    """Return the share of the last ten seconds in which some task waited for memory.

    Returns 0 if there is no such file.
    """
    try:
        found = _SOME.search(Path(path).read_text(encoding="ascii", errors="replace"))
    except OSError:
        return 0.0
    return float(found[1]) / 100 if found else 0.0
