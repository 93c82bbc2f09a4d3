"""Synthetic models: the file holds the tensors and the bytes that the model says."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest

from secateur.device.profile import OUTPUT
from secateur.device.synthetic_gguf import Synthetic


def _model(kind: str, head_kind: str = "") -> Synthetic:
    return Synthetic(
        kind=kind,
        layers=2,
        hidden=64,
        inner=96,
        heads=2,
        kv_heads=1,
        vocabulary=320,
        head_dim=32,
        head_kind=head_kind,
    )


@pytest.mark.parametrize(("kind", "head_kind"), [("f16", ""), ("q4_0", "q8_0"), ("q8_0", "")])
def test_the_file_is_what_it_says(tmp_path: Path, kind: str, head_kind: str) -> None:
    model = _model(kind, head_kind)
    model.write(tmp_path / "a.gguf")
    read = gguf.GGUFReader(str(tmp_path / "a.gguf"))
    matrices = [tensor for tensor in read.tensors if len(tensor.shape) == 2]
    assert len(matrices) == 1 + 7 * 2
    held: dict[str, float] = {}
    for tensor in matrices:
        name = tensor.tensor_type.name.lower()
        held[name] = held.get(name, 0.0) + float(tensor.n_bytes)
    assert model.bytes == held
    head = next(tensor for tensor in matrices if tensor.name == "token_embd.weight")
    assert head.tensor_type.name.lower() == (head_kind or kind)
    assert model.read == {kind: sum(held.values()) - head.n_bytes, OUTPUT: head.n_bytes}
    shapes = {tensor.name: tuple(map(int, reversed(tensor.shape))) for tensor in matrices}
    assert shapes["blk.1.attn_k.weight"] == (32, 64)
    assert shapes["blk.1.ffn_down.weight"] == (64, 96)


def test_settings_are_those_of_a_llama(tmp_path: Path) -> None:
    _model("f16").write(tmp_path / "a.gguf")
    fields = {
        name: field.contents() for name, field in gguf.GGUFReader(str(tmp_path / "a.gguf")).fields.items()
    }
    wanted = {"block_count": 2, "embedding_length": 64, "feed_forward_length": 96, "vocab_size": 320}
    assert {name: fields[f"llama.{name}"] for name in wanted} == wanted
    assert len(set(fields["tokenizer.ggml.tokens"])) == 320


def test_the_cache_of_a_token() -> None:
    """Keys and values, two bytes each, of every block."""
    assert _model("f16").cache == 2 * 2 * 2 * 1 * 32
