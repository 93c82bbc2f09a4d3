"""Return freed memory to the operating system."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_ALONE = 8 << 20
_KEPT = 32 << 20
_KEPT_OUT = ("accelerate", "scipy")


def spare_the_machine() -> None:
    """Configure a process of our own, before it imports torch and transformers, to hold little memory."""
    # OpenMP threads that wait by spinning starve each other as soon as one core is busy with something else:
    # pruning was measured three times slower then.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # MKL would keep the work space of every factorisation: 20 to 50 MB.
    os.environ.setdefault("MKL_DISABLE_FAST_MM", "1")
    # transformers imports these wherever they are installed, for losses and for training that nothing here
    # needs: 40 MB.
    for name in _KEPT_OUT:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    hold_little()


def let_train() -> None:
    """Allow the imports that `spare_the_machine` blocks; training needs them."""
    for name in _KEPT_OUT:
        if name in sys.modules and sys.modules[name] is None:
            del sys.modules[name]


def hold_little() -> None:
    """Fix the limits of the C allocator, so that it does not hold on to freed memory.

    For a process of our own. glibc raises its limits with every large tensor that is freed: it held 40 MB
    after some blocks of SmolLM2-135M. From 8 MiB on, a tensor gets pages of its own. With a limit of 4 MiB,
    page faults cost more time than the memory saved was worth.
    """
    change = _of_glibc("mallopt")
    if change is not None:
        change(_M_MMAP_THRESHOLD, _ALONE)
        change(_M_TRIM_THRESHOLD, _KEPT)


def give_back() -> None:
    """Return the freed pages that glibc holds to the system; do nothing under another C library."""
    trim = _of_glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _of_glibc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
