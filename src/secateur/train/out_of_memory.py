"""Recognize a lack of memory, and find the size that fits."""

from __future__ import annotations

from collections.abc import Callable

import torch


def is_memory(error: RuntimeError) -> bool:
    """Return whether an error says that memory did not suffice."""
    return (
        isinstance(error, torch.OutOfMemoryError)
        or "can't allocate memory" in str(error)
        or "not enough memory" in str(error)
    )


def what_fits(size: int, tried: Callable[[int], object]) -> int:
    """Return the largest of `size` / 2, `size` / 4, ... that `tried` has memory for; 0 if it has for none.

    Other errors of `tried` are raised.
    """
    while (size := size // 2) > 0:
        try:
            tried(size)
        except RuntimeError as error:
            if not is_memory(error):
                raise
        else:
            return size
    return 0
