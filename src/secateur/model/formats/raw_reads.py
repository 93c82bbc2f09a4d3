"""Read weight files without mapping them into memory.

So a file that is cut short while it is read is an error, not a crash, and no page of it stays in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from math import prod
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from secateur_runtime.errors import SourceError

_CHUNK = 1 << 20
_PIECE_ELEMENTS = 1 << 20


def row_spans(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Yield `(start, stop)` over the rows of a shape, about a million elements at a time."""
    step = max(1, _PIECE_ELEMENTS // max(1, prod(shape[1:])))
    for start in range(0, shape[0], step):
        yield start, min(start + step, shape[0])


def read_into(file: BinaryIO, path: Path, offset: int, tensor: Tensor) -> None:
    """Fill the contiguous `tensor` with the bytes at `offset`.

    Raises SourceError where the file ends early.
    """
    if not tensor.numel():
        return
    # numpy has no bfloat16, so the storage is filled as bytes; a scalar has no last dimension to reinterpret
    # until it is flat.
    view = memoryview(tensor.reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
    try:
        file.seek(offset)
        got = file.readinto(view)  # type: ignore[attr-defined]
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}") from None
    if got != len(view):
        raise SourceError(
            f"{path} ended {len(view) - got} bytes early: it changed while it was read; get the file again"
        )


def digest_files(paths: Iterable[Path]) -> str:
    """Return `sha256:<hex>` over the bytes of `paths` in order, holding one chunk at a time."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_CHUNK))
    for path in paths:
        try:
            with path.open("rb", buffering=0) as file:
                while count := file.readinto(buffer):
                    digest.update(buffer[:count])
        except OSError as error:
            raise SourceError(f"cannot read {path}: {error.strerror or error}") from None
    return "sha256:" + digest.hexdigest()
