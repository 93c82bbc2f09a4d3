"""Folders of quantised weights in the format `pack-quantized` of compressed-tensors, which stock transformers loads.

Beside `NAME_scale` lies `NAME_packed`, the codes of a row one after another in 32-bit words, with the real shape in
`NAME_shape` and, where codes do not stand around zero, `NAME_zero_point`, packed along the columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur.core.codes import BITS, Codes, Grid, packed_words
from secateur.core.errors import MissingExtraError, SourceError, UnsupportedModelError
from secateur.core.graph import TensorInfo
from secateur.core.source import Source
from secateur.model.families import HEAD
from secateur.model.folder import FolderSource

CONFIG_KEY = "quantization_config"
_METHOD, _FORMAT = "compressed-tensors", "pack-quantized"
_PACKED, _SCALE, _SHAPE, _ZERO, _ORDER = "_packed", "_scale", "_shape", "_zero_point", "_g_idx"
_PARTS = (_PACKED, _SCALE, _SHAPE, _ZERO, _ORDER)


def require_packing() -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """Return the functions that pack and unpack codes; raises MissingExtraError without compressed-tensors."""
    try:
        from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32, unpack_from_int32
    except ImportError:
        raise MissingExtraError("quantised folders need the compressed-tensors package: pip install 'secateur[quantize]'") from None
    return pack_to_int32, unpack_from_int32


def packed_tensors(name: str, codes: Codes) -> dict[str, Tensor]:
    """Return what a folder stores for the weight `name`."""
    pack, _ = require_packing()
    stored = {_PACKED: pack(codes.values, codes.grid.bits), _SCALE: codes.scales.contiguous(), _SHAPE: torch.tensor(codes.values.shape)}
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

    grids: tensor name -> grid. plain: linears that are not quantised.
    """
    kinds: dict[Grid, list[str]] = {}
    for name, grid in grids.items():
        kinds.setdefault(grid, []).append(name.removesuffix(".weight"))
    groups = {
        f"group_{index}": {"targets": ["Linear"] if len(kinds) == 1 else names, "weights": _weights(grid), "format": _FORMAT}
        for index, (grid, names) in enumerate(kinds.items())
    }
    ignore = [name.removesuffix(".weight") for name in (HEAD, *plain)]
    config = {"quant_method": _METHOD, "format": _FORMAT, "quantization_status": "compressed", "config_groups": groups, "ignore": ignore}
    # Otherwise transformers makes room for zero points that are not packed, and then refuses the packed ones.
    return config if all(grid.symmetric for grid in kinds) else {**config, "dequantize": True}


def _weights(grid: Grid) -> dict[str, Any]:
    return {"num_bits": grid.bits, "type": "int", "symmetric": grid.symmetric, "strategy": "group", "group_size": grid.group}


def open_folder(path: Path, ref: str) -> Source:
    """Return the model in a folder, quantised or not; raises UnsupportedModelError for a quantisation that is not known."""
    folder = FolderSource(path, ref)
    config = folder.config.get(CONFIG_KEY)
    if config is None:
        return folder
    method, form = (str(config.get(key)) if isinstance(config, dict) else "" for key in ("quant_method", "format"))
    groups = config.get("config_groups", {}).values() if isinstance(config, dict) and isinstance(config.get("config_groups"), dict) else ()
    known = method == _METHOD and form == _FORMAT and not any(isinstance(group, dict) and group.get("input_activations") for group in groups)
    if not known:
        raise UnsupportedModelError(f"not supported because {ref} is quantised as {method} {form}: of quantised folders only {_METHOD} {_FORMAT} is read")
    return PackedSource(folder)


class PackedSource:
    """A Source whose quantised weights read back as float32; `codes` gives them as they are.

    grids: name of a quantised weight -> its grid, read off the stored shapes.
    """

    def __init__(self, folder: FolderSource) -> None:
        self.ref, self.path = folder.ref, folder.path
        self.config = {key: value for key, value in folder.config.items() if key != CONFIG_KEY}
        self._folder = folder
        names = [name.removesuffix(_PACKED) for name in folder.tensors if name.endswith(_PACKED)]
        shapes = {name: self._shape(name) for name in names}
        self.grids = {name: self._grid(name, columns) for name, (_, columns) in shapes.items()}
        parts = {name + part for name in names for part in _PARTS}
        self.tensors: Mapping[str, TensorInfo] = {
            **{name: info for name, info in folder.tensors.items() if name not in parts},
            **{name: TensorInfo(shapes[name], str(self.grids[name])) for name in names},
        }

    def codes(self, name: str) -> Codes:
        """Return a quantised weight as it is stored."""
        parts = (_PACKED, _SCALE) if self.grids[name].symmetric else (_PACKED, _SCALE, _ZERO)
        return unpacked(name, self.grids[name], {name + part: self._folder.read(name + part) for part in parts})

    def read(self, name: str) -> Tensor:
        """Return one tensor, in its stored type or, where it is quantised, as float32."""
        return self.codes(name).dense() if name in self.grids else self._folder.read(name)

    def pieces(self, name: str) -> Iterator[Tensor]:
        """Yield the rows of one tensor in order; a quantised one comes whole."""
        if name in self.grids:
            yield self.read(name)
        else:
            yield from self._folder.pieces(name)

    def digest(self) -> str:
        """Return the digest of the files."""
        return self._folder.digest()

    def tokenizer(self) -> Any:
        """Return the folder's tokenizer."""
        return self._folder.tokenizer()

    def copy_companions(self, folder: Path) -> None:
        """Copy tokenizer, chat template and generation config."""
        self._folder.copy_companions(folder)

    def _shape(self, name: str) -> tuple[int, int]:
        if name + _ORDER in self._folder.tensors:
            raise UnsupportedModelError(f"not supported because the groups of {name} are out of order ({name + _ORDER}): quantise it without activation order")
        if name + _SCALE not in self._folder.tensors or self._folder.tensors.get(name + _SHAPE, TensorInfo((), "")).shape != (2,):
            raise SourceError(f"{self.ref}: {name}{_SCALE} or {name}{_SHAPE} is missing: get the folder again")
        rows, columns = self._folder.read(name + _SHAPE).tolist()
        return int(rows), int(columns)

    def _grid(self, name: str, columns: int) -> Grid:
        """Return the grid that the stored shapes mean; raises SourceError where they mean none."""
        (rows, words), scales = self._folder.tensors[name + _PACKED].shape, self._folder.tensors[name + _SCALE].shape
        bits = words * 32 // max(columns, 1)
        # Fewer columns than a word has bits could have been packed at two widths.
        whole = columns >= 32 and len(scales) == 2 and scales[0] == rows and scales[1] and columns % scales[1] == 0
        zeros = self._folder.tensors.get(name + _ZERO)
        fits = whole and bits in BITS and words == packed_words(columns, bits) and (zeros is None or zeros.shape == (packed_words(rows, bits), scales[1]))
        if not fits:
            raise SourceError(f"{self.ref}: {name} is packed in a shape that does not fit its scales: get the folder again")
        return Grid(bits=bits, group=columns // scales[1], symmetric=zeros is None)
