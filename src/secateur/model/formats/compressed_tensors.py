"""Folders of quantized weights in the format `pack-quantized` of compressed-tensors.

Stock transformers loads them. A weight `NAME` is stored as `NAME_scale` and `NAME_packed`, which holds the
codes of each row one after another in 32-bit words. `NAME_shape` holds the real shape. An asymmetric grid
adds `NAME_zero_point`, packed along the columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur.core.graph import TensorInfo
from secateur.model.families import HEAD
from secateur.model.formats.quantized_source import CONFIG_KEY, CodedSource
from secateur.model.formats.safetensors_source import FolderSource
from secateur.model.formats.sparse_folder import METHOD as SPARSE
from secateur.model.formats.sparse_folder import SparseSource
from secateur.tensors.source import Source
from secateur_runtime.errors import MissingExtraError, SourceError, UnsupportedModelError
from secateur_runtime.kernels.quantized import BITS, Codes, Grid, packed_words

_METHOD = "compressed-tensors"
_FORMAT = "pack-quantized"
_PACKED = "_packed"
_SCALE = "_scale"
_SHAPE = "_shape"
_ZERO = "_zero_point"
_ORDER = "_g_idx"
_PARTS = (_PACKED, _SCALE, _SHAPE, _ZERO, _ORDER)


def require_packing() -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """Return the functions that pack and unpack codes.

    Raises MissingExtraError without compressed-tensors.
    """
    try:
        from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32, unpack_from_int32
    except ImportError:
        raise MissingExtraError(
            "quantized folders need the compressed-tensors package: pip install 'secateur[quantize]'"
        ) from None
    return pack_to_int32, unpack_from_int32


def packed_tensors(name: str, codes: Codes) -> dict[str, Tensor]:
    """Return what a folder stores for the weight `name`."""
    pack, _ = require_packing()
    stored = {
        _PACKED: pack(codes.values, codes.grid.bits),
        _SCALE: codes.scales.contiguous(),
        _SHAPE: torch.tensor(codes.values.shape),
    }
    if codes.zeros is not None:
        stored[_ZERO] = pack(codes.zeros, codes.grid.bits, packed_dim=0)
    return {name + part: tensor for part, tensor in stored.items()}


def unpacked(name: str, grid: Grid, stored: Mapping[str, Tensor]) -> Codes:
    """Return the weight `name` of `stored`, which holds what `packed_tensors` makes."""
    _, unpack = require_packing()
    scales = stored[name + _SCALE]
    shape = torch.Size((len(scales), scales.shape[1] * grid.group))
    values = unpack(stored[name + _PACKED], grid.bits, shape)
    zeros = None if grid.symmetric else unpack(stored[name + _ZERO], grid.bits, scales.shape, packed_dim=0)
    return Codes(grid, values.contiguous(), scales, None if zeros is None else zeros.contiguous())


def quantization_config(grids: Mapping[str, Grid], plain: list[str]) -> dict[str, Any]:
    """Return the part of `config.json` that tells transformers which weights are packed, and how.

    grids: tensor name -> grid. plain: linears that are not quantized.
    """
    kinds: dict[Grid, list[str]] = {}
    for name, grid in grids.items():
        kinds.setdefault(grid, []).append(name.removesuffix(".weight"))
    groups = {
        f"group_{index}": {
            "targets": ["Linear"] if len(kinds) == 1 else names,
            "weights": _weights(grid),
            "format": _FORMAT,
        }
        for index, (grid, names) in enumerate(kinds.items())
    }
    ignore = [name.removesuffix(".weight") for name in (HEAD, *plain)]
    config = {
        "quant_method": _METHOD,
        "format": _FORMAT,
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": ignore,
    }
    # Otherwise transformers allocates unpacked zero points, and then refuses the packed ones.
    return config if all(grid.symmetric for grid in kinds) else {**config, "dequantize": True}


def _weights(grid: Grid) -> dict[str, Any]:
    return {
        "num_bits": grid.bits,
        "type": "int",
        "symmetric": grid.symmetric,
        "strategy": "group",
        "group_size": grid.group,
    }


def open_folder(path: Path, ref: str) -> Source:
    """Return the model in a folder, quantized or not.

    Raises UnsupportedModelError for an unknown kind of quantization.
    """
    folder = FolderSource(path, ref)
    config = folder.config.get(CONFIG_KEY)
    if config is None:
        return folder
    method, form = (
        str(config.get(key)) if isinstance(config, dict) else "" for key in ("quant_method", "format")
    )
    if method == SPARSE:
        return SparseSource(folder, config)
    groups = (
        config.get("config_groups", {}).values()
        if isinstance(config, dict) and isinstance(config.get("config_groups"), dict)
        else ()
    )
    known = (
        method == _METHOD
        and form == _FORMAT
        and not any(isinstance(group, dict) and group.get("input_activations") for group in groups)
    )
    if not known:
        raise UnsupportedModelError(
            f"not supported because {ref} is quantized as {method} {form}: of quantized folders only"
            f" {_METHOD} {_FORMAT} is read"
        )
    return PackedSource(folder)


class PackedSource(CodedSource):
    """A Source whose quantized weights read back as float32, on the grids that the stored shapes mean."""

    def __init__(self, folder: FolderSource) -> None:
        names = [name.removesuffix(_PACKED) for name in folder.tensors if name.endswith(_PACKED)]
        shapes = {name: _shape(folder, name) for name in names}
        grids = {name: _grid(folder, name, columns) for name, (_, columns) in shapes.items()}
        whole = {name: TensorInfo(shape, str(grids[name])) for name, shape in shapes.items()}
        super().__init__(folder, grids, whole, {name + part for name in names for part in _PARTS})

    def codes(self, name: str) -> Codes:
        """Return a quantized weight as it is stored."""
        parts = (_PACKED, _SCALE) if self.grids[name].symmetric else (_PACKED, _SCALE, _ZERO)
        return unpacked(
            name, self.grids[name], {name + part: self._folder.read(name + part) for part in parts}
        )

    def unpacked(self, name: str) -> Tensor:
        """Return a quantized weight, float32."""
        return self.codes(name).dense()


def _shape(folder: FolderSource, name: str) -> tuple[int, int]:
    if name + _ORDER in folder.tensors:
        raise UnsupportedModelError(
            f"not supported because the groups of {name} are out of order ({name + _ORDER}): quantize it"
            " without activation order"
        )
    if name + _SCALE not in folder.tensors or folder.tensors.get(name + _SHAPE, TensorInfo((), "")).shape != (
        2,
    ):
        raise SourceError(f"{folder.ref}: {name}{_SCALE} or {name}{_SHAPE} is missing: get the folder again")
    rows, columns = folder.read(name + _SHAPE).tolist()
    return int(rows), int(columns)


def _grid(folder: FolderSource, name: str, columns: int) -> Grid:
    """Return the grid that the stored shapes mean; raises SourceError where they mean none."""
    rows, words = folder.tensors[name + _PACKED].shape
    scales = folder.tensors[name + _SCALE].shape
    bits = words * 32 // max(columns, 1)
    # Fewer columns than a word has bits could have been packed at two widths.
    whole = (
        columns >= 32 and len(scales) == 2 and scales[0] == rows and scales[1] and columns % scales[1] == 0
    )
    zeros = folder.tensors.get(name + _ZERO)
    fits = (
        whole
        and bits in BITS
        and words == packed_words(columns, bits)
        and (zeros is None or zeros.shape == (packed_words(rows, bits), scales[1]))
    )
    if not fits:
        raise SourceError(
            f"{folder.ref}: {name} is packed in a shape that does not fit its scales: get the folder again"
        )
    return Grid(bits=bits, group=columns // scales[1], symmetric=zeros is None)
