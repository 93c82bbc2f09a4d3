"""Folders of weights without their zeros.

`config.json` holds, as `quantization_config`, `{"quant_method": "secateur-sparse", "version": 1, "weights":
{NAME: {"shape": [rows, columns], "stored": "bf16" or a grid such as "int8-g64"}}}`. In the place of `NAME`
the safetensors files hold the parts of a `secateur_runtime.kernels.bitmask.Packed`, laid out as it says
there:

    NAME_mask    U8   [rows, 8 * ceil(columns / 64)]   one bit for each weight
    NAME_count   I32  [rows]                           non-zeros of each row
    NAME_values  BF16 or U8 [...]                      what the bits keep
    NAME_scale   F16  [rows, columns / group]          only on grids

Version 1 has no other fields; a reader refuses what it does not know. Nothing is computed from a weight
before all its parts were checked against each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from secateur.core.graph import TensorInfo
from secateur.model.formats.quantized_source import CodedSource
from secateur.model.formats.safetensors_source import FolderSource
from secateur_runtime.errors import SourceError, UnsupportedModelError, UsageError
from secateur_runtime.kernels.bitmask import Packed
from secateur_runtime.kernels.quantized import Codes, Grid

METHOD = "secateur-sparse"
VERSION = 1
_MASK = "_mask"
_COUNT = "_count"
_VALUES = "_values"
_SCALE = "_scale"
_PARTS = (_MASK, _COUNT, _VALUES, _SCALE)
_BF16 = "bf16"


def sparse_tensors(name: str, packed: Packed) -> dict[str, Tensor]:
    """Return what a folder stores for the weight `name`."""
    parts = {_MASK: packed.mask, _COUNT: packed.counts, _VALUES: packed.values, _SCALE: packed.scales}
    return {name + part: tensor.contiguous() for part, tensor in parts.items() if tensor is not None}


def sparse_config(stored: Mapping[str, tuple[tuple[int, int], Grid | None]]) -> dict[str, Any]:
    """Return the part of `config.json` that lists the weights stored without their zeros.

    stored: name -> shape and grid; None for bfloat16.
    """
    weights = {
        name: {"shape": list(shape), "stored": str(grid) if grid else _BF16}
        for name, (shape, grid) in stored.items()
    }
    return {"quant_method": METHOD, "version": VERSION, "weights": weights}


def put_together(
    name: str, shape: tuple[int, int], grid: Grid | None, stored: Mapping[str, Tensor]
) -> Packed:
    """Return the weight `name` of `stored`, which holds what `sparse_tensors` makes.

    Raises SourceError where its parts do not fit.
    """
    packed = Packed(
        shape,
        grid,
        stored[name + _MASK],
        stored[name + _COUNT],
        stored[name + _VALUES],
        stored.get(name + _SCALE),
    )
    packed.check(name)
    return packed


class SparseSource(CodedSource):
    """A Source whose sparse weights read back as bfloat16 or, from codes, as float32.

    `packed` gives them as they are.

    Raises UnsupportedModelError for another version, SourceError for a description that is damaged or lacks
    parts.
    """

    def __init__(self, folder: FolderSource, config: Mapping[str, Any]) -> None:
        if config.get("version") != VERSION or isinstance(config.get("version"), bool):
            raise UnsupportedModelError(
                f"{folder.ref} is stored in version {config.get('version')} of {METHOD}, and only {VERSION}"
                " is known: update secateur"
            )
        weights = config.get("weights")
        if not isinstance(weights, dict) or not weights:
            raise SourceError(f"{folder.ref}: its config lists no sparse weights: get config.json again")
        self._described = {name: _described(folder, name, entry) for name, entry in weights.items()}
        grids = {name: grid for name, (_, grid) in self._described.items() if grid is not None}
        whole = {
            name: TensorInfo(shape, str(grid) if grid else "BF16")
            for name, (shape, grid) in self._described.items()
        }
        super().__init__(folder, grids, whole, {name + part for name in weights for part in _PARTS})

    @property
    def sparse(self) -> frozenset[str]:
        """Names of the weights that are stored without their zeros."""
        return frozenset(self._described)

    def packed(self, name: str) -> Packed:
        """Return a sparse weight as it is stored.

        Raises SourceError where its parts do not fit each other.
        """
        shape, grid = self._described[name]
        stored = {
            name + part: self._folder.read(name + part)
            for part in _PARTS
            if name + part in self._folder.tensors
        }
        return put_together(name, shape, grid, stored)

    def codes(self, name: str) -> Codes:
        """Return a quantized weight, zeros included."""
        found = self.packed(name).codes()
        assert isinstance(found, Codes)
        return found

    def unpacked(self, name: str) -> Tensor:
        """Return a sparse weight, zeros included."""
        return self.packed(name).dense()


def _described(folder: FolderSource, name: str, entry: object) -> tuple[tuple[int, int], Grid | None]:
    shape, stored = (entry.get("shape"), entry.get("stored")) if isinstance(entry, dict) else (None, None)
    sizes = (
        isinstance(shape, list) and len(shape) == 2 and all(type(size) is int and size > 0 for size in shape)
    )
    if not sizes or not isinstance(stored, str) or name in folder.tensors:
        raise SourceError(
            f"{folder.ref}: what config.json says of the sparse weight {name} cannot be: get it again"
        )
    assert isinstance(shape, list)
    try:
        grid = None if stored == _BF16 else Grid.parse(stored)
    except UsageError:
        raise SourceError(
            f"{folder.ref}: {name} is stored as {stored!r}, which is unknown: get config.json again, or"
            " update secateur"
        ) from None
    missing = [part for part in _PARTS[: 4 if grid else 3] if name + part not in folder.tensors]
    if missing or (grid is None and name + _SCALE in folder.tensors):
        raise SourceError(
            f"{folder.ref}: {name}{missing[0] if missing else _SCALE} is"
            f" {'missing' if missing else 'not expected'}: get the folder again"
        )
    return (shape[0], shape[1]), grid
