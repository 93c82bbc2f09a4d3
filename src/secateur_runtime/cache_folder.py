"""The folder of what is made once and kept: compiled kernels, ladders, measurements of this machine."""

from __future__ import annotations

import os
from pathlib import Path

from secateur_runtime.errors import OutputError

VARIABLE = "SECATEUR_CACHE"


def cache_folder() -> Path:
    """Return `$SECATEUR_CACHE`, or `secateur` in `$XDG_CACHE_HOME` or `~/.cache`; it may not exist yet.

    Raises OutputError where none of them says where it is.
    """
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    shared = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(shared) if shared else Path.home() / ".cache") / "secateur"
    except RuntimeError:
        raise OutputError(f"there is no home folder to keep files in: set {VARIABLE} to a folder") from None
