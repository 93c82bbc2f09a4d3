"""A GGUF file as a Source: tensors under Hugging Face names, dequantized one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from secateur.core.graph import TensorInfo
from secateur.model.formats.gguf.config import gguf_config, stored_family
from secateur.model.formats.gguf.header import GgufTensor, read_header
from secateur.model.formats.gguf.names import huggingface_names, undo_permutation
from secateur.model.formats.raw_reads import digest_files, read_into, row_spans
from secateur_runtime.errors import SourceError, UnsupportedModelError

_PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
# Dequantizing makes several copies of what it is given. Copies of 64 KiB are reused by malloc; larger ones
# are mapped and faulted in anew each time, which took 2 to 8 times as long on SmolLM2-135M.
_SLAB_ELEMENTS = 1 << 14


class GgufSource:
    """A Source over one GGUF file; floats keep their stored type, quantized tensors come back as float32."""

    def __init__(self, path: Path, ref: str) -> None:
        self.ref = ref
        self.path = path
        self._header = read_header(path)
        self._family = stored_family(self._header)
        self._stored = huggingface_names(self._header.tensors, self._family)
        self._digest = ""
        self.config: dict[str, Any] = gguf_config(self._header, self._family, self._numbers)
        self.tensors: Mapping[str, TensorInfo] = {
            name: TensorInfo(stored.shape, stored.type_name) for name, stored in self._stored.items()
        }

    def read(self, name: str) -> Tensor:
        """Return one tensor laid out as transformers holds it, owned by the caller.

        Raises SourceError if the file changed.
        """
        tensor = self._as_norm(name, _read(self.path, self._stored[name]))
        heads = self._permuted_heads(name)
        return undo_permutation(tensor, heads) if heads else tensor

    def pieces(self, name: str) -> Iterator[Tensor]:
        """Yield the rows of one tensor in order, a few at a time; raises SourceError if the file changed."""
        if self._permuted_heads(name):
            yield self.read(name)
            return
        for part in _parts(self._stored[name]):
            yield self._as_norm(name, _read(self.path, part))

    def digest(self) -> str:
        """Return `sha256:<hex>` of the file."""
        self._digest = self._digest or digest_files([self.path])
        return self._digest

    def tokenizer(self) -> Any:
        """Return the tokenizer that the metadata describes; raises SourceError where there is none."""
        from secateur.model.formats.gguf.tokenizer import gguf_tokenizer

        return gguf_tokenizer(self._header)

    def copy_companions(self, folder: Path) -> None:
        """Write tokenizer, chat template and generation config into `folder`."""
        from secateur.model.formats.gguf.tokenizer import write_generation_config

        self.tokenizer().save_pretrained(folder)
        write_generation_config(self._header, folder)

    def _as_norm(self, name: str, tensor: Tensor) -> Tensor:
        offset = self._family.norm_offset
        return tensor - offset if offset and name.endswith("norm.weight") else tensor

    def _permuted_heads(self, name: str) -> int:
        """Return the number of heads whose rows the converter interleaved in `name`, or 0."""
        if not self._family.in_gguf().loader.permuted:
            return 0
        for part, key in ((".q_proj.", "num_attention_heads"), (".k_proj.", "num_key_value_heads")):
            if part in name:
                heads = int(self.config[key])
                if self.tensors[name].shape[0] % (2 * heads):
                    raise UnsupportedModelError(
                        f"not supported because {name} has {self.tensors[name].shape[0]} rows for {heads}"
                        " heads"
                    )
                return heads
        return 0

    def _numbers(self, gguf_name: str) -> list[float]:
        return [float(item) for item in _read(self.path, self._header.tensors[gguf_name]).flatten().tolist()]


def _parts(stored: GgufTensor) -> Iterator[GgufTensor]:
    """Yield consecutive rows as tensors of their own; a row is a whole number of quantized blocks."""
    row_bytes = stored.nbytes // stored.shape[0]
    for start, stop in row_spans(stored.shape):
        shape = (stop - start, *stored.shape[1:])
        yield replace(
            stored, shape=shape, offset=stored.offset + start * row_bytes, nbytes=(stop - start) * row_bytes
        )


def _read(path: Path, stored: GgufTensor) -> Tensor:
    try:
        with path.open("rb") as file:
            if stored.type_name not in _PLAIN:
                return _dequantized(file, path, stored)
            tensor = torch.empty(stored.shape, dtype=_PLAIN[stored.type_name])
            read_into(file, path, stored.offset, tensor)
            return tensor
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}") from None


def _dequantized(file: BinaryIO, path: Path, stored: GgufTensor) -> Tensor:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

    kind = GGMLQuantizationType(stored.type_id)
    block, block_bytes = GGML_QUANT_SIZES[kind]
    step = _SLAB_ELEMENTS // block
    tensor = torch.empty(prod(stored.shape), dtype=torch.float32)
    for start in range(0, tensor.numel() // block, step):
        count = min(step, tensor.numel() // block - start)
        # One long row: gguf works through its input 16 rows at a time, which is slow for short ones.
        packed = torch.empty((1, count * block_bytes), dtype=torch.uint8)
        read_into(file, path, stored.offset + start * block_bytes, packed)
        tensor[start * block : (start + count) * block] = torch.from_numpy(
            quants.dequantize(packed.numpy(), kind)[0]
        )
    return tensor.reshape(stored.shape)
