"""Memory that was freed goes back to the system."""

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
    """Set, for a process that is ours alone, what must be set before it imports torch and transformers."""
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
    """Let what trains import what `spare_the_machine` keeps out."""
    for name in _KEPT_OUT:
        if name in sys.modules and sys.modules[name] is None:
            del sys.modules[name]


def hold_little() -> None:
    """Keep the C allocator from raising its own limits, so that what is freed is not kept.

    For a process that is ours alone.

    glibc takes every large tensor that is freed as a reason to keep more: 40 MB after some blocks of
    SmolLM2-135M. From 8 MiB on a tensor has pages of its own; at half of that, faulting them in anew cost
    more time than it saved memory.
    """
    change = _of_glibc("mallopt")
    if change is not None:
        change(_M_MMAP_THRESHOLD, _ALONE)
        change(_M_TRIM_THRESHOLD, _KEPT)


def give_back() -> None:
    """Return freed pages that the C allocator keeps; does nothing where it is not glibc."""
    trim = _of_glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _of_glibc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
