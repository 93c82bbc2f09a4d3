"""Write a GGUF file tensor by tensor: no more of the model is in memory than one tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFValueType, GGUFWriter, LlamaFileType
from torch import Tensor

from secateur.core.errors import SourceError
from secateur.core.graph import TensorInfo
from secateur.core.progress import Progress
from secateur.core.source import Source
from secateur.export.layout import Layout, Stored
from secateur.export.types import check_width, finite, kind_of, nbytes, pack, rounded

_QUANTIZATION_VERSION = 2


@dataclass(frozen=True, slots=True)
class Typed:
    """Metadata copied from another file: its value and its exact type."""

    value: Any
    kind: GGUFValueType
    item: GGUFValueType | None = None


class GgufExport:
    """A model on its way into one GGUF file.

    layout: what the file holds. fields: metadata by full key, plain values or `Typed`. factors: vectors by name.
    kind: type of most weights. head: name of the matrix that makes logits.
    Raises UsageError if a width does not fit the type.
    """

    def __init__(
        self, source: Source, layout: Layout, fields: Mapping[str, Any], factors: Mapping[str, list[float]], kind: GGMLQuantizationType, head: str
    ) -> None:
        self._source, self._layout, self._fields, self._kind = source, layout, fields, kind
        self._factors = factors
        self._kinds = {stored.name: kind_of(kind, stored.shape, output=head in stored.parts) for stored in layout.tensors}
        for stored in layout.tensors:
            check_width(stored.parts[0] if stored.parts else stored.name, stored.shape, self._kinds[stored.name])

    def rounded(self) -> Source:
        """Return the model with every weight as the file holds it."""
        kinds = {part: self._kinds[stored.name] for stored in self._layout.tensors for part in stored.parts}
        return _Rounded(self._source, kinds)

    def write(self, path: Path, progress: Progress) -> None:
        """Write the file; raises SourceError for weights that are not finite, OSError where it cannot be written."""
        writer = GGUFWriter(path, self._layout.arch)
        for key, value in self._fields.items():
            _add(writer, key, value)
        writer.add_file_type(LlamaFileType.ALL_F32 if self._kind.name == "F32" else LlamaFileType[f"MOSTLY_{self._kind.name}"])
        writer.add_quantization_version(_QUANTIZATION_VERSION)
        vectors = {name: np.array(values, dtype=np.float32) for name, values in self._factors.items()}
        for name, vector in vectors.items():
            writer.add_tensor_info(name, vector.shape, vector.dtype, vector.nbytes)
        for stored in self._layout.tensors:
            kind = self._kinds[stored.name]
            writer.add_tensor_info(stored.name, stored.shape, np.dtype(np.float32), nbytes(stored.shape, kind), raw_dtype=kind)
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for vector in vectors.values():
                writer.write_tensor_data(vector)
            progress.start("export", len(self._layout.tensors))
            for stored in self._layout.tensors:
                writer.write_tensor_data(pack(stored.name, self._read(stored), self._kinds[stored.name]))
                progress.step(stored.name)
        finally:
            writer.close()

    def _read(self, stored: Stored) -> Tensor:
        if not stored.parts:
            return torch.full(stored.shape, stored.add)
        parts = [self._source.read(part).float() for part in stored.parts]
        tensor = torch.cat(parts) if len(parts) > 1 else parts[0]
        if not finite(tensor):
            raise SourceError(f"{self._source.ref}: {stored.parts[0]} holds NaN or infinite weights; get the model again")
        if stored.heads:
            halves = tensor.reshape(stored.heads, 2, tensor.shape[0] // stored.heads // 2, *tensor.shape[1:])
            tensor = halves.transpose(1, 2).reshape(tensor.shape)
        return tensor + stored.add if stored.add else tensor


class _Rounded:
    """A Source whose weights are rounded as a file stores them."""

    def __init__(self, source: Source, kinds: Mapping[str, GGMLQuantizationType]) -> None:
        self.ref, self.config = source.ref, source.config
        self.tensors: Mapping[str, TensorInfo] = source.tensors
        self._source, self._kinds = source, kinds

    def read(self, name: str) -> Tensor:
        return rounded(name, self._source.read(name).float(), self._kinds[name])

    def pieces(self, name: str) -> Iterator[Tensor]:
        for piece in self._source.pieces(name):
            yield rounded(name, piece.float(), self._kinds[name])

    def digest(self) -> str:
        return self._source.digest()

    def tokenizer(self) -> Any:
        return self._source.tokenizer()

    def copy_companions(self, folder: Path) -> None:
        self._source.copy_companions(folder)


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
