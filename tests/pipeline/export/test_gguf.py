"""Models of every family as GGUF files: what llama.cpp computes from them, and what is in them."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from tests.conftest import Maker
from tests.tiny_models import FAMILIES

from secateur.export.gguf.types import TYPES
from secateur.model.formats.gguf.header import read_header
from secateur.model.formats.open_source import open_source
from secateur.pipeline.export.gguf import Exported, export
from secateur_runtime.errors import (
    MissingCheckerError,
    OutputError,
    SecateurError,
    SourceError,
    UnsupportedModelError,
    UsageError,
)

pytest.importorskip("xllamacpp", reason="pip install 'secateur[llamacpp]'")

EXACT = 1e-5
FIELDS = "secateur.export.gguf.description.tokenizer_fields"
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
    "rope_theta": 5e5,
}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "partial_rotary_factor": 1.0,
    "long_factor": [2.0] * 8,
    "short_factor": [1.5] * 8,
}
GEMMA3 = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
}


def verified(done: Exported) -> float:
    """Return the divergence that was measured."""
    assert done.kl is not None
    return done.kl


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(tiny: Maker, tmp_path: Path, family: str) -> None:
    """llama.cpp computes the same, and our own reader finds the same tensors."""
    done = export(str(tiny(family)), tmp_path / "a.gguf", kind="f32")
    assert verified(done) <= EXACT
    source, original = open_source(str(done.out)), open_source(str(tiny(family)))
    assert set(source.tensors) == set(original.tensors)
    for name in source.tensors:
        torch.testing.assert_close(source.read(name), original.read(name), rtol=0, atol=3e-7)
    assert (
        source.tokenizer()("Pruning, 2048 times.")["input_ids"]
        == original.tokenizer()("Pruning, 2048 times.")["input_ids"]
    )
    assert source.tokenizer().chat_template == original.tokenizer().chat_template
    assert list(tmp_path.iterdir()) == [done.out]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("llama", {"rope_parameters": LLAMA3, "head_dim": 32}),
        ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
        ("llama", {"num_key_value_heads": 1, "dtype": "bfloat16"}),
        ("qwen2", {"rope_parameters": YARN}),
        (
            "phi3",
            {
                "rope_parameters": LONG,
                "original_max_position_embeddings": 256,
                "max_position_embeddings": 512,
            },
        ),
        (
            "phi3",
            {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
        ),
        ("gemma3_text", {"rope_parameters": GEMMA3}),
        ("gemma3_text", {"layer_types": ["sliding_attention", "full_attention"] * 3}),
        ("gemma2", {"layer_types": ["sliding_attention"] * 3}),
        ("qwen3", {"tie_word_embeddings": False, "num_attention_heads": 2, "num_key_value_heads": 1}),
        ("qwen2", {"vocab_size": 416}),
    ],
)
def test_settings_that_matter(tiny: Maker, tmp_path: Path, family: str, config: dict[str, Any]) -> None:
    assert verified(export(str(tiny(family, **config)), tmp_path / "a.gguf", kind="f32")) <= EXACT


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("kind", TYPES)
def test_types(tiny: Maker, tmp_path: Path, kind: str) -> None:
    """Every tensor is what gguf makes of it.

    Vectors stay float32, and the matrix that makes logits is at least 8 bits.
    """
    done = export(str(tiny("qwen2")), tmp_path / "a.gguf", kind=kind)
    original = open_source(str(tiny("qwen2")))
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(str(done.out)).tensors}
    names = {
        "blk.1.ffn_down.weight": "model.layers.1.mlp.down_proj.weight",
        "blk.0.attn_q.bias": "model.layers.0.self_attn.q_proj.bias",
    }
    names |= {
        "token_embd.weight": "model.embed_tokens.weight",
        "output.weight": "lm_head.weight",
        "output_norm.weight": "model.norm.weight",
    }
    for name, ours in names.items():
        weight = original.read(ours)
        expected = TYPES[kind] if weight.dim() > 1 else gguf.GGMLQuantizationType.F32
        if name == "output.weight" and kind.startswith("q"):
            expected = gguf.GGMLQuantizationType.Q8_0
        assert stored[name].tensor_type == expected
        assert stored[name].data.tobytes() == gguf.quants.quantize(weight.numpy(), expected).tobytes()
    assert verified(done) < 1e-2


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_gguf_in_gguf_out(tiny_gguf: Maker, tmp_path: Path, family: str) -> None:
    """Tensors survive, and the tokenizer is copied as it is."""
    path = tiny_gguf(family)
    done = export(str(path), tmp_path / "a.gguf", kind="f32")
    assert verified(done) <= EXACT
    source, original = open_source(str(done.out)), open_source(str(path))
    for name in original.tensors:
        torch.testing.assert_close(source.read(name), original.read(name), rtol=0, atol=3e-7)
    before, after = read_header(path), read_header(done.out)
    words = [key for key in before.spans if key.startswith("tokenizer.")]
    assert len(words) > 8
    assert all(
        before.get(key) == after.get(key) and before.spans[key][0] == after.spans[key][0] for key in words
    )


def test_a_window_that_llama_cpp_has_not_is_the_context(tiny: Maker, tmp_path: Path) -> None:
    done = export(str(tiny("mistral")), tmp_path / "a.gguf", kind="f32")
    assert done.context == read_header(done.out).get("llama.context_length") == 16
    assert "announces a context of 16" in done.notes[0]
    assert export(str(tiny("mistral", sliding_window=None)), tmp_path / "b.gguf", kind="f32").notes == ()


@pytest.mark.parametrize(
    ("family", "config", "kind", "error", "message"),
    [
        (
            "qwen2",
            {"intermediate_size": 100},
            "q4_0",
            UsageError,
            r"down_proj.weight is 100 wide.*multiple of 32 \(96 or 128\)",
        ),
        ("qwen2", {}, "q4_9", UsageError, r"unknown --type 'q4_9' \(did you mean q4_1\?\)"),
        ("qwen2", {}, "q4_k_m", UsageError, r"needs llama.cpp's llama-quantize program on the PATH"),
        ("smollm3", {"no_rope_layers": [1, 1, 0, 1]}, "f16", UnsupportedModelError, "in groups of 4"),
        (
            "gemma3_text",
            {"layer_types": ["full_attention", "sliding_attention"] * 3},
            "f16",
            UnsupportedModelError,
            "remove whole periods of layers",
        ),
        (
            "gemma2",
            {"query_pre_attn_scalar": 64},
            "f16",
            UnsupportedModelError,
            "scales the attention of this model by 32 and it needs 64",
        ),
        (
            "phi3",
            {"num_attention_heads": 2, "head_dim": 16},
            "f16",
            UnsupportedModelError,
            "only where all its query heads are as wide as its hidden states",
        ),
        (
            "qwen3",
            {"attention_bias": True},
            "f16",
            UnsupportedModelError,
            "loader of qwen3 reads no model.layers.0.self_attn.o_proj.bias.*--repair lsq",
        ),
        (
            "gemma3_text",
            {"attention_bias": True},
            "f16",
            UnsupportedModelError,
            "loader of gemma3 reads no model.layers.0.self_attn.o_proj.bias",
        ),
        (
            "smollm3",
            {"mlp_bias": True},
            "f16",
            UnsupportedModelError,
            "loader of smollm3 reads no model.layers.0.mlp.gate_proj.bias",
        ),
        (
            "qwen3",
            {"rope_parameters": LLAMA3},
            "f16",
            UnsupportedModelError,
            "no rotary scaling of the kind 'llama3'",
        ),
    ],
)
def test_what_cannot_work(
    tiny: Maker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    family: str,
    config: dict[str, Any],
    kind: str,
    error: type[SecateurError],
    message: str,
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(error, match=message) as raised:
        export(str(tiny(family, **config)), tmp_path / "a.gguf", kind=kind)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (1e5, UsageError, "output.weight has weights beyond the range of f16: use --type bf16 or f32"),
        (float("nan"), SourceError, "lm_head.weight holds NaN or infinite weights"),
    ],
)
def test_weights_that_cannot_be_stored(
    tiny: Maker, tmp_path: Path, value: float, error: type[SecateurError], message: str
) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "odd"
    shutil.copytree(tiny("qwen2"), folder)
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"][0, 0] = value
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(error, match=message):
        export(str(folder), tmp_path / "a.gguf", kind="f16")
    assert list(tmp_path.iterdir()) == [folder]


def test_outputs(tiny: Maker, tmp_path: Path) -> None:
    model = str(tiny("llama"))
    (tmp_path / "a.gguf").write_text("mine")
    with pytest.raises(OutputError, match="exists: choose another --output, or pass --overwrite"):
        export(model, tmp_path / "a.gguf", verify=False)
    assert (tmp_path / "a.gguf").read_text() == "mine"
    assert export(model, tmp_path / "a.gguf", verify=False, overwrite=True).kl is None
    (tmp_path / "b.gguf").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        export(model, tmp_path / "b.gguf", verify=False)
    with pytest.raises(OutputError, match="cannot write"):
        export(model, tmp_path / "a.gguf" / "c.gguf", verify=False)
    with pytest.raises(UsageError, match=r"does not end in .gguf"):
        export(model, tmp_path / "c.bin")


def test_without_llama_cpp(tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "xllamacpp" else find(name, *more)
    )
    with pytest.raises(MissingCheckerError, match=r"pip install 'secateur\[llamacpp\]'"):
        export(str(tiny("llama")), tmp_path / "a.gguf")
    assert export(str(tiny("llama")), tmp_path / "a.gguf", verify=False).out.exists()


def test_k_quants_through_a_program(tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that fails is one line; one that only copies gives what the copy holds."""
    program = tmp_path / "bin" / "llama-quantize"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    program.write_text("#!/bin/sh\necho no such type $3 >&2\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(OutputError, match=r"llama-quantize failed \(exit 1\): no such type Q4_K_M"):
        export(str(tiny("qwen2")), tmp_path / "a.gguf", kind="q4_k_m")
    program.write_text('#!/bin/sh\ncp "$1" "$2"\n')
    assert verified(export(str(tiny("qwen2")), tmp_path / "a.gguf", kind="q4_k_m")) < 1e-2
    assert {path.name for path in tmp_path.iterdir()} == {"bin", "a.gguf"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_smollm2(smollm2: str, tmp_path: Path, kind: str) -> None:
    done = export(smollm2, tmp_path / "a.gguf", kind=kind)
    assert verified(done) < {"f16": 1e-4, "q8_0": 5e-2}[kind]
    assert open_source(str(done.out)).config | {"dtype": ""} == open_source(smollm2).config | {"dtype": ""}
