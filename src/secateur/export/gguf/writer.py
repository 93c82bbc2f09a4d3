"""Write a GGUF file tensor by tensor: no more of the model is in memory than one tensor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFValueType, GGUFWriter, LlamaFileType
from numpy.typing import NDArray
from torch import Tensor

from secateur.core.progress import Progress
from secateur.export.gguf.codes import kind_of_grid, pack_codes
from secateur.export.gguf.layout import LaidTensor, Layout
from secateur.export.gguf.types import check_width, exact_kind, finite, kind_of, nbytes, pack, rounded
from secateur.tensors.source import Derived, Source
from secateur_runtime.errors import SourceError, UsageError
from secateur_runtime.kernels.quantized import Codes, Grid

_QUANTIZATION_VERSION = 2


@dataclass(frozen=True, slots=True)
class Typed:
    """Metadata copied from another file: its value and its exact type."""

    value: Any
    kind: GGUFValueType
    item: GGUFValueType | None = None


@dataclass(frozen=True, slots=True)
class QuantizedWeights:
    """The quantized weights of a model: their grids by name, and how to read one."""

    grids: Mapping[str, Grid]
    codes: Callable[[str], Codes]


class GgufExport:
    """A model on its way into one GGUF file.

    layout: what the file holds. fields: metadata by full key, plain values or `Typed`. factors: vectors by
    name. kind: type of most weights, or quantized weights, which keep their quantized values. head: name of
    the output matrix.
    Raises UsageError if a width or a grid does not fit the type.
    """

    def __init__(
        self,
        source: Source,
        layout: Layout,
        fields: Mapping[str, Any],
        factors: Mapping[str, list[float]],
        kind: GGMLQuantizationType | QuantizedWeights,
        head: str,
    ) -> None:
        self._source = source
        self._layout = layout
        self._fields = fields
        self._factors = factors
        self._packed = kind if isinstance(kind, QuantizedWeights) else None
        if isinstance(kind, QuantizedWeights):
            self._kinds = {stored.name: _kind_in(source, layout, stored, kind) for stored in layout.tensors}
            self._kind = Counter(
                self._kinds[stored.name] for stored in layout.tensors if set(stored.parts) & kind.grids.keys()
            ).most_common(1)[0][0]
        else:
            self._kinds = {
                stored.name: kind_of(kind, stored.shape, output=head in stored.parts)
                for stored in layout.tensors
            }
            self._kind = kind
        for stored in layout.tensors:
            check_width(
                stored.parts[0] if stored.parts else stored.name, stored.shape, self._kinds[stored.name]
            )

    def rounded(self) -> Source:
        """Return the model with every weight as the file holds it."""
        whole = self._packed.grids if self._packed else {}
        kinds = {
            part: self._kinds[stored.name]
            for stored in self._layout.tensors
            for part in stored.parts
            if part not in whole
        }
        return _Rounded(self._source, kinds)

    def write(self, path: Path, progress: Progress) -> None:
        """Write the file.

        Raises SourceError for weights that are not finite, OSError where the file cannot be written.
        """
        writer = GGUFWriter(path, self._layout.arch)
        for key, value in self._fields.items():
            _add(writer, key, value)
        writer.add_file_type(
            LlamaFileType.ALL_F32 if self._kind.name == "F32" else LlamaFileType[f"MOSTLY_{self._kind.name}"]
        )
        writer.add_quantization_version(_QUANTIZATION_VERSION)
        vectors = {name: np.array(values, dtype=np.float32) for name, values in self._factors.items()}
        for name, vector in vectors.items():
            writer.add_tensor_info(name, vector.shape, vector.dtype, vector.nbytes)
        for stored in self._layout.tensors:
            kind = self._kinds[stored.name]
            writer.add_tensor_info(
                stored.name, stored.shape, np.dtype(np.float32), nbytes(stored.shape, kind), raw_dtype=kind
            )
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for vector in vectors.values():
                writer.write_tensor_data(vector)
            progress.start("export", len(self._layout.tensors))
            for stored in self._layout.tensors:
                writer.write_tensor_data(self._bytes(stored))
                progress.step(stored.name)
        finally:
            writer.close()

    def _bytes(self, stored: LaidTensor) -> NDArray[Any]:
        if self._packed is None or not set(stored.parts) & self._packed.grids.keys():
            return pack(stored.name, self._read(stored), self._kinds[stored.name])
        rows = [torch.from_numpy(pack_codes(part, self._packed.codes(part))) for part in stored.parts]
        return _arranged(stored, rows).contiguous().numpy()

    def _read(self, stored: LaidTensor) -> Tensor:
        if not stored.parts:
            return torch.full(stored.shape, stored.add)
        tensor = _arranged(stored, [self._source.read(part).float() for part in stored.parts])
        if not finite(tensor):
            raise SourceError(
                f"{self._source.ref}: {stored.parts[0]} holds NaN or infinite weights; get the model again"
            )
        return tensor + stored.add if stored.add else tensor


def _kind_in(
    source: Source, layout: Layout, stored: LaidTensor, packed: QuantizedWeights
) -> GGMLQuantizationType:
    """Return the type of a tensor of a quantized model.

    That of its grid, 8 bits outside the blocks, and no rounding for the rest.
    """
    grids = {packed.grids.get(part) for part in stored.parts}
    if len(grids) > 1:
        raise UsageError(
            f"{layout.arch} files hold {', '.join(stored.parts)} as one tensor, and they lie on different"
            " grids: export with --type f16"
        )
    grid = grids.pop() if grids else None
    if grid is not None:
        return kind_of_grid(stored.parts[0], grid)
    if len(stored.shape) > 1 and not stored.name.startswith("blk."):
        return GGMLQuantizationType.Q8_0
    return exact_kind(stored.shape, source.tensors[stored.parts[0]].dtype if stored.parts else "")


def _arranged(stored: LaidTensor, parts: list[Tensor]) -> Tensor:
    """Return the rows of a tensor as the file has them: of all parts, those of each head interleaved."""
    tensor = torch.cat(parts) if len(parts) > 1 else parts[0]
    if not stored.heads:
        return tensor
    halves = tensor.reshape(stored.heads, 2, tensor.shape[0] // stored.heads // 2, *tensor.shape[1:])
    return halves.transpose(1, 2).reshape(tensor.shape)


class _Rounded(Derived):
    """A Source whose weights are rounded as a file stores them, those in `kinds`."""

    def __init__(self, source: Source, kinds: Mapping[str, GGMLQuantizationType]) -> None:
        super().__init__(source)
        self._kinds = kinds

    def read(self, name: str) -> Tensor:
        tensor = self._source.read(name).float()
        return rounded(name, tensor, self._kinds[name]) if name in self._kinds else tensor

    def pieces(self, name: str) -> Iterator[Tensor]:
        for piece in self._source.pieces(name):
            yield rounded(name, piece.float(), self._kinds[name]) if name in self._kinds else piece.float()


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, Typed):
        writer.add_key_value(key, value.value, value.kind, value.item)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif value:
        writer.add_array(key, value)
