"""The worker process of a comparison; it reports progress and results on stdout, one JSON object a line."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

from secateur.core.progress import Told, tell
from secateur.pipeline.compare.row_work import make, time_row
from secateur.runtime.process import process_memory
from secateur_runtime.errors import SecateurError

_PR_SET_PDEATHSIG = 1
START = """
import sys
from secateur.core.process_memory import spare_the_machine
spare_the_machine()
from secateur.pipeline.compare.worker import main
main(*sys.argv[1:])
"""
"""The program of a worker; `spare_the_machine` must run before the imports of this module."""


def bound(limit: int) -> None:
    """Have the kernel refuse this process more than `limit` bytes, its pages of files included."""
    own = max(limit - process_memory().files, 1 << 20)
    resource.setrlimit(resource.RLIMIT_DATA, (own, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def main(folder: str, action: str, limit: str, parent: str, *names: str) -> None:
    """Do `action` (`make` or `time`) to the rows called `names`; a row that fails does not stop the next.

    folder: of the comparison. limit: bytes, 0 for no limit. parent: id of the process with which this one
    ends.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(parent):
            return
    if int(limit):
        bound(int(limit))
    for name in names:
        tell(begin=name)
        try:
            {"make": make, "time": time_row}[action](Path(folder), name, Told())
        except SecateurError as error:
            tell(end=name, error=str(error), code=error.exit_code)
        else:
            tell(end=name)
