"""GGUF files of models with random weights, to be timed: speed does not depend on the values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

from secateur.device.profile import OUTPUT

_ROWS = 32
_CONTEXT = 1 << 16
# Byte-level tokenizers write each byte as one of these letters.
_LETTERS = [
    chr(byte) if chr(byte).isprintable() and not chr(byte).isspace() else chr(256 + byte)
    for byte in range(256)
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Synthetic:
    """A Llama of random weights with tied embeddings.

    kind: type of its matrices. head_kind: type of its embeddings, empty for the same. inner: FFN neurons.
    """

    kind: str
    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    vocabulary: int
    head_dim: int = 64
    head_kind: str = ""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The matrices of one block."""
        queries = self.heads * self.head_dim
        keys = self.kv_heads * self.head_dim
        hidden = self.hidden
        inner = self.inner
        found: dict[str, tuple[int, ...]] = {
            "attn_q": (queries, hidden),
            "attn_k": (keys, hidden),
            "attn_v": (keys, hidden),
        }
        found["attn_output"] = (hidden, queries)
        return found | {"ffn_gate": (inner, hidden), "ffn_up": (inner, hidden), "ffn_down": (hidden, inner)}

    @property
    def bytes(self) -> dict[str, float]:
        """Bytes of matrices in the file, by type."""
        read = self.read
        head = self.head_kind or self.kind
        return {self.kind: read[self.kind]} | {
            head: read[OUTPUT] + (read[self.kind] if head == self.kind else 0.0)
        }

    @property
    def read(self) -> dict[str, float]:
        """Bytes of matrices that a token reads, by type, the output matrix apart, as in `TokenWork`."""
        blocks = float(self.layers * sum(_bytes(self.kind, shape) for shape in self.shapes.values()))
        return {
            self.kind: blocks,
            OUTPUT: float(_bytes(self.head_kind or self.kind, (self.vocabulary, self.hidden))),
        }

    @property
    def cache(self) -> int:
        """Bytes of a 16-bit KV cache for each token."""
        return 2 * 2 * self.layers * self.kv_heads * self.head_dim

    def write(self, path: Path) -> None:
        """Write the file."""
        writer = gguf.GGUFWriter(path, "llama")
        self._add_settings(writer)
        rng = np.random.default_rng(0)
        for name, shape in self._tensors():
            kind = gguf.GGMLQuantizationType[
                (
                    "F32"
                    if len(shape) == 1
                    else ((self.head_kind if name == "token_embd" else "") or self.kind).upper()
                )
            ]
            if len(shape) == 1:
                writer.add_tensor(f"{name}.weight", np.ones(shape, dtype=np.float32))
                continue
            rows = gguf.quants.quantize(
                rng.normal(scale=0.02, size=(_ROWS, shape[1])).astype(np.float32), kind
            )
            writer.add_tensor(
                f"{name}.weight", np.tile(rows, (-(-shape[0] // _ROWS), 1))[: shape[0]], raw_dtype=kind
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    def _tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield "token_embd", (self.vocabulary, self.hidden)
        yield "output_norm", (self.hidden,)
        for index in range(self.layers):
            yield f"blk.{index}.attn_norm", (self.hidden,)
            yield f"blk.{index}.ffn_norm", (self.hidden,)
            for name, shape in self.shapes.items():
                yield f"blk.{index}.{name}", shape

    def _add_settings(self, writer: gguf.GGUFWriter) -> None:
        writer.add_name("synthetic")
        writer.add_vocab_size(self.vocabulary)
        writer.add_context_length(_CONTEXT)
        writer.add_embedding_length(self.hidden)
        writer.add_block_count(self.layers)
        writer.add_feed_forward_length(self.inner)
        writer.add_head_count(self.heads)
        writer.add_head_count_kv(self.kv_heads)
        writer.add_key_length(self.head_dim)
        writer.add_value_length(self.head_dim)
        writer.add_rope_dimension_count(self.head_dim)
        writer.add_rope_freq_base(10000.0)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("smollm")
        writer.add_token_list(
            [*_LETTERS, *(f"<{index}>" for index in range(self.vocabulary - len(_LETTERS)))]
        )
        writer.add_token_types([gguf.TokenType.NORMAL] * self.vocabulary)
        writer.add_token_merges(["a b"])
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(0)


def _bytes(kind: str, shape: tuple[int, ...]) -> int:
    block, block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind.upper()]]
    return int(np.prod(shape)) // block * block_bytes
