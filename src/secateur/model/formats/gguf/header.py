"""A strict reader of GGUF headers.

Every count, length and offset is checked against the file size before it is used.

`gguf.GGUFReader` is not used for untrusted files: it trusts counts and offsets, so damaged files end in
`IndexError`, `UnicodeDecodeError`, endless loops or gigabytes of allocation, and it keeps an array per
vocabulary entry in memory.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from secateur_runtime.errors import SourceError, UnsupportedModelError

_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_FLOAT32 = 6
_STRING = 8
_ARRAY = 9
# Far above any real file; a bound keeps a damaged count from walking gigabytes of zeros.
_MAX_ITEMS = 1 << 24
_MAX_INTEGER = 1 << 31
_MAX_DIMS = 4
_MAX_NAME = 1 << 16


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One stored tensor: `shape` in torch order, `offset` and `nbytes` in the file."""

    name: str
    shape: tuple[int, ...]
    type_name: str
    type_id: int
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """The metadata and tensor table of one GGUF file.

    Values are decoded when asked for, so a vocabulary costs nothing until then.
    """

    path: Path
    tensors: dict[str, GgufTensor]
    spans: dict[str, tuple[int, int, int]]

    def __contains__(self, key: str) -> bool:
        return key in self.spans

    def get(self, key: str, default: Any = None) -> Any:
        """Return the decoded value of `key` (arrays as lists), or `default`.

        Raises SourceError if it cannot be decoded.
        """
        if key not in self.spans:
            return default
        kind, start, end = self.spans[key]
        with self.path.open("rb") as file:
            file.seek(start)
            data = file.read(end - start)
        cursor = _Cursor(data, len(data), str(self.path))
        return cursor.array() if kind == _ARRAY else cursor.value(kind)

    def word(self, key: str) -> str:
        """Return the text under `key`; raises SourceError where there is none."""
        value = self.get(key)
        if not isinstance(value, str):
            raise self._unusable(key, value)
        return value

    def integer(self, key: str, default: int | None = None, *, least: int = 1) -> int:
        """Return the whole number under `key`, which is at least `least`.

        A list with one number for each block must hold the same number throughout.

        Raises:
            SourceError: it is missing without a default, or not such a number.
            UnsupportedModelError: it differs between blocks.
        """
        value = self._single(key, default)
        if type(value) is not int or not least <= value < _MAX_INTEGER:
            raise self._unusable(key, value)
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Return the positive number under `key`; raises SourceError as `integer` does."""
        value = self._single(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise self._unusable(key, value)
        return float(value)

    def words(self, key: str) -> list[str]:
        """Return the list of texts under `key`; raises SourceError where there is none."""
        value = self.get(key)
        if not isinstance(value, list) or not value or not isinstance(value[0], str):
            raise self._unusable(key, value)
        return value

    def _single(self, key: str, default: float | None) -> Any:
        value = self.get(key, default)
        if not isinstance(value, list) or not value:
            return value
        if any(item != value[0] for item in value):
            raise UnsupportedModelError(
                f"not supported because {key!r} differs between blocks: prune the original model instead"
            )
        return value[0]

    def _unusable(self, key: str, value: object) -> SourceError:
        shown = "missing" if value is None else repr(value)[:40]
        return SourceError(f"{self.path} is not a usable GGUF model: {key!r} is {shown}; get the file again")


def read_header(path: Path) -> GgufHeader:
    """Read the header of a little-endian GGUF file of version 2 or 3.

    Raises SourceError with one line for any other file, and for one that is damaged or cut short.
    """
    size = path.stat().st_size
    if size < 24:
        raise SourceError(f"{path} is not a GGUF file: it has {size} bytes")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        cursor = _Cursor(data, size, str(path))
        n_tensors, n_values = _preamble(cursor)
        spans = _read_spans(cursor, n_values)
        alignment = _alignment(cursor, spans)
        rows = [_tensor_row(cursor) for _ in range(n_tensors)]
    start = -(-cursor.at // alignment) * alignment
    return GgufHeader(path, _place(rows, start, alignment, cursor), spans)


class _Cursor:
    """Reads little-endian fields from `data`, never past `size`."""

    def __init__(self, data: mmap.mmap | bytes, size: int, name: str) -> None:
        self.data = data
        self.size = size
        self.name = name
        self.at = 0

    def fail(self, reason: str) -> SourceError:
        return SourceError(
            f"{self.name} is damaged or cut short: {reason} at byte {self.at}; get the file again"
        )

    def skip(self, count: int) -> int:
        """Move past `count` bytes and return where they start."""
        start = self.at
        if count > self.size - start:
            raise self.fail(f"{count} bytes are needed, {self.size - start} are left,")
        self.at = start + count
        return start

    def scalar(self, code: str) -> Any:
        return struct.unpack_from(code, self.data, self.skip(struct.calcsize(code)))[0]

    def text(self, limit: int | None = None) -> str:
        length = self.scalar("<Q")
        if limit is not None and length > limit:
            raise self.fail(f"a name of {length} bytes")
        start = self.skip(length)
        try:
            return self.data[start : self.at].decode("utf-8")
        except UnicodeDecodeError:
            raise self.fail("text that is not UTF-8") from None

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        value = self.scalar(_SCALARS[kind])
        # 1e-5 was written as a float32; the nearest double of its bits is 9.99999974e-06, not what the model
        # was trained with.
        return float(str(np.float32(value))) if kind == _FLOAT32 else value

    def array_head(self) -> tuple[int, int]:
        """Return item type and count, checked against what is left of the file."""
        kind = self.scalar("<I")
        count = self.scalar("<Q")
        if kind != _STRING and kind not in _SCALARS:
            raise self.fail(f"an array of unknown type {kind}")
        smallest = 8 if kind == _STRING else struct.calcsize(_SCALARS[kind])
        if count > _MAX_ITEMS or count * smallest > self.size - self.at:
            raise self.fail(f"an array of {count} items")
        return kind, count

    def array(self) -> list[Any]:
        kind, count = self.array_head()
        if kind == _STRING:
            return [self.text() for _ in range(count)]
        code = _SCALARS[kind]
        start = self.skip(count * struct.calcsize(code))
        return list(struct.unpack_from(f"<{count}{code[1]}", self.data, start))

    def pass_over(self, kind: int) -> None:
        """Move past one value without keeping it."""
        if kind == _STRING:
            self.skip(self.scalar("<Q"))
        elif kind == _ARRAY:
            item, count = self.array_head()
            if item == _STRING:
                for _ in range(count):
                    self.skip(self.scalar("<Q"))
            else:
                self.skip(count * struct.calcsize(_SCALARS[item]))
        elif kind in _SCALARS:
            self.skip(struct.calcsize(_SCALARS[kind]))
        else:
            raise self.fail(f"a value of unknown type {kind}")


def _preamble(cursor: _Cursor) -> tuple[int, int]:
    magic = cursor.data[cursor.skip(4) : 4]
    if magic == b"FUGG":
        raise SourceError(
            f"{cursor.name} is a big-endian GGUF file: convert it to little-endian with gguf's"
            " gguf_convert_endian"
        )
    if magic != b"GGUF":
        raise SourceError(f"{cursor.name} is not a GGUF file: it starts with {magic!r}")
    version = cursor.scalar("<I")
    if version not in (2, 3):
        big = struct.unpack(">I", struct.pack("<I", version))[0] in (2, 3)
        reason = "big-endian" if big else f"GGUF version {version}"
        raise SourceError(
            f"{cursor.name} is {reason}: only little-endian GGUF versions 2 and 3 can be read; convert the"
            " model again"
        )
    n_tensors = cursor.scalar("<Q")
    n_values = cursor.scalar("<Q")
    # The smallest value is a name length, a type and one byte; the smallest tensor row a name length, a rank,
    # one size, a type and an offset.
    if n_values * 13 > cursor.size or n_tensors * 32 > cursor.size:
        raise cursor.fail(f"{n_values} values and {n_tensors} tensors are announced,")
    return n_tensors, n_values


def _read_spans(cursor: _Cursor, count: int) -> dict[str, tuple[int, int, int]]:
    spans: dict[str, tuple[int, int, int]] = {}
    for _ in range(count):
        key = cursor.text(_MAX_NAME)
        if key in spans:
            raise cursor.fail(f"{key!r} appears twice")
        kind = cursor.scalar("<I")
        start = cursor.at
        cursor.pass_over(kind)
        spans[key] = (kind, start, cursor.at)
    return spans


def _alignment(cursor: _Cursor, spans: dict[str, tuple[int, int, int]]) -> int:
    if "general.alignment" not in spans:
        return 32
    kind, start, _ = spans["general.alignment"]
    alignment = struct.unpack_from("<I", cursor.data, start)[0] if kind == 4 else 0
    if not 8 <= alignment <= 1 << 20 or alignment & (alignment - 1):
        raise cursor.fail(f"alignment {alignment}")
    return int(alignment)


def _tensor_row(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    name = cursor.text(_MAX_NAME)
    rank = cursor.scalar("<I")
    if not 1 <= rank <= _MAX_DIMS:
        raise cursor.fail(f"tensor {name!r} has {rank} dimensions")
    sizes = [cursor.scalar("<Q") for _ in range(rank)]
    return name, tuple(reversed(sizes)), cursor.scalar("<I"), cursor.scalar("<Q")


def _place(
    rows: list[tuple[str, tuple[int, ...], int, int]], start: int, alignment: int, cursor: _Cursor
) -> dict[str, GgufTensor]:
    tensors: dict[str, GgufTensor] = {}
    for name, shape, type_id, offset in rows:
        type_name, block, block_bytes = _storage(type_id, name, cursor)
        numel = 1
        for size in shape:
            numel *= size
        if name in tensors or not numel or shape[-1] % block:
            raise cursor.fail(
                f"tensor {name!r} appears twice or has a shape {list(shape)} that {type_name} cannot hold"
            )
        nbytes = numel // block * block_bytes
        if offset % alignment or start + offset + nbytes > cursor.size:
            raise SourceError(
                f"{cursor.name} is damaged or cut short: tensor {name!r} ends beyond the file; get the file"
                " again"
            )
        tensors[name] = GgufTensor(name, shape, type_name, type_id, start + offset, nbytes)
    end = 0
    for tensor in sorted(tensors.values(), key=lambda item: item.offset):
        if tensor.offset < end:
            raise SourceError(
                f"{cursor.name} is damaged: tensor {tensor.name!r} overlaps another; get the file again"
            )
        end = tensor.offset + tensor.nbytes
    return tensors


def _storage(type_id: int, name: str, cursor: _Cursor) -> tuple[str, int, int]:
    """Return name, elements per block and bytes per block of a stored type."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

    try:
        kind = GGMLQuantizationType(type_id)
    except ValueError:
        raise SourceError(
            f"{cursor.name}: tensor {name!r} has the unknown type {type_id}; update `gguf` or convert the"
            " model again"
        ) from None
    plain = kind in (GGMLQuantizationType.F32, GGMLQuantizationType.F16)
    if not plain and kind not in quants._type_traits:
        raise SourceError(
            f"{cursor.name}: tensor {name!r} is stored as {kind.name}, which cannot be read; convert the"
            " model to another type"
        )
    block, block_bytes = GGML_QUANT_SIZES[kind]
    return kind.name, block, block_bytes
