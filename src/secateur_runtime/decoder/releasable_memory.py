"""Memory filled from a file; any part can be released to the system and read again."""

from __future__ import annotations

import mmap
import os
import sys
import weakref
from collections.abc import Sequence
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from secateur_runtime.errors import SourceError, UsageError

PAGE = mmap.PAGESIZE
_PIECE = 8 << 20
# Python names it from 3.13 on.
_NO_RESERVE = 0x4000


def whole_pages(size: int) -> int:
    """Return a size rounded up to whole pages."""
    return -(-size // PAGE) * PAGE


class ReleasableMemory:
    """Anonymous memory of `size` bytes that takes pages only when it is written; the caller lays it out.

    Pages of anonymous memory belong to the process: a release takes effect at once in every count. Pages of a
    mapped file would stay in the page cache, charged to the process that read them first.
    """

    def __init__(self, size: int) -> None:
        if sys.platform != "linux":
            raise UsageError("an elastic model needs Linux to release memory to the system")
        self._map = mmap.mmap(-1, max(size, PAGE), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE)
        # The kernel keeps a huge page that lost a part until it has time to split it.
        self._map.madvise(mmap.MADV_NOHUGEPAGE)

    def tensor(self, start: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Return the tensor that lies at `start`; zeros where nothing was written."""
        return torch.frombuffer(self._map, dtype=dtype, count=prod(shape), offset=start).view(*shape)

    def release(self, start: int, end: int) -> int:
        """Release the whole pages within `[start, end)` and lose their contents; return their bytes."""
        first = whole_pages(start)
        last = end // PAGE * PAGE
        if last <= first:
            return 0
        self._map.madvise(mmap.MADV_DONTNEED, first, last - first)
        return last - first

    def fill(self, start: int, file: WeightFile, offset: int, size: int) -> None:
        """Read `size` bytes of a file to `start`."""
        with memoryview(self._map) as whole:
            for at in range(0, size, _PIECE):
                with whole[start + at : start + min(at + _PIECE, size)] as part:
                    file.read(offset + at, part)


class WeightFile:
    """A file whose contents do not stay in the page cache after they are read."""

    def __init__(self, path: Path) -> None:
        try:
            self._handle = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise SourceError(f"cannot read {path}: {error.strerror}") from None
        self.path = path
        weakref.finalize(self, os.close, self._handle)

    def read(self, offset: int, into: memoryview) -> None:
        """Fill a buffer with the bytes at `offset`; raises SourceError if the file is too short."""
        done = 0
        while done < len(into):
            count = os.preadv(self._handle, [into[done:]], offset + done)
            if not count:
                raise SourceError(
                    f"{self.path} ends at byte {offset + done}: delete it, and it is written again"
                )
            done += count
        os.posix_fadvise(self._handle, offset, len(into), os.POSIX_FADV_DONTNEED)
