"""Write a tiny model as the GGUF file that llama.cpp's converter would make of it.

Names come from gguf's own map, so that these tests do not lean on the table they test.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

Array = NDArray[Any]

ARCHS = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "smollm3": gguf.MODEL_ARCH.SMOLLM3,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "gemma2": gguf.MODEL_ARCH.GEMMA2,
    "gemma3_text": gguf.MODEL_ARCH.GEMMA3,
    "phi3": gguf.MODEL_ARCH.PHI3,
}
# Written by hand, as the reference of the rows; a family that is not here is stored under its own name.
_BY_NAME = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}
# The converter reorders the rows of q and k for these, and adds one to every norm of those.
PERMUTED = (gguf.MODEL_ARCH.LLAMA, gguf.MODEL_ARCH.SMOLLM3)
OFFSET = (gguf.MODEL_ARCH.GEMMA2, gguf.MODEL_ARCH.GEMMA3)


def write_gguf(folder: Path, path: Path, kind: str = "F32") -> None:
    """Convert the tiny model in `folder`; matrices are stored as `kind`, vectors as F32."""
    config = json.loads((folder / "config.json").read_text())
    arch = arch_of(config["model_type"])
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    add_settings(writer, config)
    add_tokenizer(writer, folder, config)
    for name, array in converted(load_file(folder / "model.safetensors"), config, arch):
        stored = gguf.GGMLQuantizationType[kind] if array.ndim > 1 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quants.quantize(array, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def arch_of(family: str) -> gguf.MODEL_ARCH:
    """Return the architecture that llama.cpp's converter stores a family as."""
    return ARCHS[family] if family in ARCHS else _BY_NAME[family]


def converted(
    weights: Mapping[str, Array], config: Mapping[str, Any], arch: gguf.MODEL_ARCH
) -> Iterator[tuple[str, Array]]:
    """Yield the tensors of a model under GGUF names, laid out as the converter lays them out."""
    names = gguf.get_tensor_name_map(arch, config["num_hidden_layers"])
    heads = {".q_proj.": config["num_attention_heads"], ".k_proj.": config["num_key_value_heads"]}
    for name, weight in weights.items():
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert stored, name
        array = weight.astype(np.float32)
        if arch in OFFSET and name.endswith("norm.weight"):
            array = array + 1
        for part, count in heads.items():
            if arch in PERMUTED and part in name:
                array = (
                    array.reshape(count, 2, len(array) // count // 2, *array.shape[1:])
                    .swapaxes(1, 2)
                    .reshape(array.shape)
                )
        yield stored, array


def add_settings(writer: gguf.GGUFWriter, config: Mapping[str, Any]) -> None:
    """Write the metadata that describes the model."""
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    rope = config["rope_parameters"]
    writer.add_name("tiny")
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
    if config["model_type"] in ("llama", "mistral", "smollm3", "phi3"):
        writer.add_rope_dimension_count(head_dim)
    else:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if config["model_type"] in ("gemma2", "gemma3_text"):
        writer.add_sliding_window(config["sliding_window"])
    if config["model_type"] == "gemma2":
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])


def add_tokenizer(writer: gguf.GGUFWriter, folder: Path, config: Mapping[str, Any]) -> None:
    """Write the byte-level tokenizer of `folder` as metadata."""
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    special = {
        entry["content"] for entry in json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    }
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token in tokens]
    )
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_add_bos_token(False)
    writer.add_chat_template((folder / "chat_template.jinja").read_text())
