"""A strict reader of safetensors headers.

Every offset is checked against the file before a byte of weight is read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, TypeGuard

from secateur_runtime.errors import SourceError

ITEM_BYTES = {
    "BF16": 2,
    "F16": 2,
    "F32": 4,
    "F64": 8,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}
_MAX_HEADER = 100_000_000


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where one tensor lies: `offset` from the start of `path`, in bytes."""

    path: Path
    shape: tuple[int, ...]
    dtype: str
    offset: int


def read_safetensors(path: Path) -> dict[str, StoredTensor]:
    """Return every tensor of one file; raises SourceError with one line where it is damaged or cut short."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _MAX_HEADER):
                raise _damaged(path, f"it is {size} bytes long and announces a header of {length}")
            header = _parse(path, file.read(length))
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}") from None
    return _place(path, header, 8 + length, size)


def _damaged(path: Path, reason: str) -> SourceError:
    return SourceError(f"{path} is damaged or cut short: {reason}; get the file again")


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        raise _damaged(path, "its header is not JSON") from None
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not a JSON object")
    header.pop("__metadata__", None)
    return header


def _place(path: Path, header: dict[str, Any], start: int, size: int) -> dict[str, StoredTensor]:
    rows = sorted((_row(path, name, entry) for name, entry in header.items()), key=lambda row: row[3:])
    at = 0
    for name, _, _, begin, end in rows:
        if begin != at:
            raise _damaged(path, f"tensor {name!r} starts at {begin} where {at} is expected")
        at = end
    if start + at != size:
        raise _damaged(path, f"its tensors end at byte {start + at}, the file at {size}")
    return {name: StoredTensor(path, shape, dtype, start + begin) for name, shape, dtype, begin, _ in rows}


def _row(path: Path, name: str, entry: object) -> tuple[str, tuple[int, ...], str, int, int]:
    if not isinstance(entry, dict):
        raise _damaged(path, f"tensor {name!r} is not described")
    dtype = entry.get("dtype")
    shape = entry.get("shape")
    offsets = entry.get("data_offsets")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise _damaged(path, f"tensor {name!r} has no usable shape or offsets")
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise SourceError(
            f"{path}: tensor {name!r} is stored as {dtype!r}, which cannot be pruned; convert the model to"
            " bfloat16"
        )
    begin, end = offsets
    if end - begin != prod(shape) * ITEM_BYTES[dtype]:
        raise _damaged(path, f"tensor {name!r} of shape {shape} and type {dtype} has {end - begin} bytes")
    return name, tuple(shape), dtype, begin, end


def _are_sizes(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)
